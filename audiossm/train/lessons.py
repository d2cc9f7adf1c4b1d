"""A recogniser's lessons: the rows it hears at each step and what its transcripts are worth."""

from typing import Any

import torch
from torch import Tensor, nn

from audiossm.errors import ConfigError
from audiossm.models import RecogniserState
from audiossm.nn import map_state, named_tensors
from audiossm.train.corpus import Corpus
from audiossm.train.grammar import Grammar
from audiossm.train.ranks import ALONE, Ranks
from audiossm.train.rows import batches, num_views
from audiossm.train.trainee import Trainee, capture, compile_layers
from audiossm.train.transcript import transcript_loss

__all__ = ["Lessons"]

RAMPED = ("phone_weight", "grammar_weight", "transducer_weight")


class Lessons:
    """Goes through the training rows from a step on.

    Some rows begin with the state that a row of the step before ended with: so the network learns
    to write what it hears now, whatever it has heard before, as it must in a stream of hours.

    Args:
        trainee: on its device.
        train: one corpus for each speed.
        noise: for augmentation, or None.
        data: the table ``data`` of recipes/transcribe/config.toml.
        hp: its table ``train``.
        step: the first one.
        captured: run the network as CUDA graphs.
        compiled: of compiled layers, if ``captured``.
        ranks: the processes that have a part of each batch's rows; several of them capture no
            graphs, in which gradients couldn't be sent while others are still computed.
        halved: they send gradients as bfloat16.
        wrapped: the trainee's backward takes the mean of their gradients; if not, the caller's
            ``Run`` does, and there may be graphs.

    Raises:
        ConfigError: the processes can't share the rows of a batch evenly.
    """

    def __init__(
        self,
        trainee: Trainee,
        train: list[Corpus],
        noise: Corpus | None,
        data: dict[str, Any],
        hp: dict[str, Any],
        *,
        step: int,
        captured: bool,
        compiled: bool = True,
        ranks: Ranks = ALONE,
        halved: bool = False,
        wrapped: bool = True,
    ) -> None:
        self.ranks, rows = ranks, ranks.part(data["rows"])
        if hp["consistency_weight"]:
            if data["rows"] % 2:
                raise ConfigError(
                    f"data.rows is {data['rows']}, but must be even: with consistency_weight "
                    "above 0 each row is heard twice"
                )
            ranks.part(data["rows"] // 2)  # rows of a batch with two views
        self.trainee, self.train, self.noise, self.data = trainee, train, noise, data
        self.model: nn.Module = trainee
        self.fresh: RecogniserState = trainee.recogniser.init_state(rows)
        self.hp = hp
        self.begin(hp["seed"], step)
        self.grammars: list[Grammar] = []
        if hp["grammar_weight"]:
            config = trainee.recogniser.config
            kinds = [(len(config.pieces), 3), (len(config.phones) + 1, 2)]
            device = trainee.rights.device
            self.grammars = [
                Grammar.count(rows, joint, symbols, order).to(device)
                for rows, joint, (symbols, order) in zip(
                    train[0].labels, train[0].joints, kinds, strict=True
                )
                if symbols > 1
            ]
        if ranks.count > 1 and wrapped:
            if captured and compiled:
                compile_layers(trainee)
            self.model = ranks.wrap(trainee, halved=halved)
        elif captured:
            samples = round(data["row_s"] * 16000)
            self.model = capture(trainee, rows, samples, compiled=compiled)

    def begin(self, seed: int, step: int) -> None:
        """Go to a step of the rows that a seed draws; no row goes on from one before it."""
        self.hp, self.step = self.hp | {"seed": seed}, step
        self.source = batches(self.train, self.data, self.hp, step, self.ranks)
        self.ended = map_state(torch.clone, self.fresh)

    def next_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the next step and its parts."""
        # a phone head that begins anew over trained layers would tear at them
        ramp = min((self.step + 1) / self.hp["warmup"], 1.0) ** 2
        now = {name: ramp * self.hp[name] for name in RAMPED}
        now["views"] = num_views(self.hp, self.step)
        self.step += 1
        batch = next(self.source)
        net, origins = self.trainee.recogniser, self.draw_origins(now["views"])
        loss, parts, ended = transcript_loss(
            self.model,
            net,
            batch,
            self.noise,
            self.hp | now,
            (self.ended, origins),
            self.grammars,
            self.trainee.transducer,
            self.ranks,
        )
        # a captured network's outputs all hang on its gradients: this step's aren't the next one's
        self.ended = map_state(Tensor.detach, ended)
        return loss, parts

    def draw_origins(self, views: int) -> Tensor:
        """Return which row of the step before each row goes on from, or -1; alike in each view.

        ``carried_share`` of them go on. (rows,) int64.
        """
        option = self.fresh.lookahead.option
        rows = torch.arange(len(option) // views, device=option.device)
        carried = self.ranks.rand(len(rows), device=option.device) < self.hp["carried_share"]
        return torch.where(carried, rows, -1).repeat(views)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next step depends on, beside the weights: the rows of all processes."""
        return self.ranks.gather(dict(named_tensors(self.ended)))

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ConfigError: it is of a batch with another number of rows.
        """
        self.ended = map_state(torch.clone, self.fresh)
        for name, tensor in named_tensors(self.ended):
            own = self.ranks.own_rows(saved[name])
            if own.shape != tensor.shape:
                raise ConfigError(
                    f"the run began with {len(saved[name])} rows a batch, but data.rows says "
                    f"{len(tensor) * self.ranks.count}: go on with as many"
                )
            tensor.copy_(own)
