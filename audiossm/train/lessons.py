"""A recogniser's lessons: the rows it hears at each step and what its transcripts are worth."""

from typing import Any

from torch import Tensor, nn

from audiossm.train.corpus import Corpus
from audiossm.train.rows import batches, num_views
from audiossm.train.trainee import Trainee, capture
from audiossm.train.transcript import transcript_loss

__all__ = ["Lessons"]


class Lessons:
    """Goes through the training rows from a step on.

    Args:
        trainee: on its device.
        train: one corpus for each speed.
        noise: for augmentation, or None.
        data: the table ``data`` of recipes/transcribe/config.toml.
        hp: its table ``train``.
        step: the first one.
        captured: run the network as CUDA graphs.
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
    ) -> None:
        self.trainee, self.noise, self.hp, self.step = trainee, noise, hp, step
        self.source = batches(train, data, hp, step)
        self.model: nn.Module = trainee
        if captured:
            self.model = capture(trainee, data["rows"], round(data["row_s"] * 16000))

    def next_loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the next step and its parts."""
        # a phone head that begins anew over trained layers would tear at them
        ramp = min((self.step + 1) / self.hp["warmup"], 1.0) ** 2
        now = {"phone_weight": ramp * self.hp["phone_weight"]}
        now["views"] = num_views(self.hp, self.step)
        self.step += 1
        batch = next(self.source)
        return transcript_loss(
            self.model, self.trainee.recogniser, batch, self.noise, self.hp | now
        )
