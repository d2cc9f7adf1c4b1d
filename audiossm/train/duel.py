"""A step of the codec's second stage, with judges or without, as one CUDA graph."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audiossm.codec import Codec
from audiossm.errors import ModelError
from audiossm.train.adversarial import fooling_loss, matching_loss, telling_loss
from audiossm.train.consistency import ConsistencyLoss
from audiossm.train.decoder_trainee import DecoderTrainee, Said
from audiossm.train.discriminators import Discriminators
from audiossm.train.kept import read_kept, write_kept
from audiossm.train.loudness import LoudnessLoss
from audiossm.train.run import Run
from audiossm.train.spectral import SpectralLoss

__all__ = ["Duel"]

BETAS = (0.8, 0.99)
# each has a weight in the recipe, NAME_weight
DISTANCES = ("mel", "magnitude", "peaks", "loudness", "hearing", "consistency", "pitch")
ADVERSARIAL = ("fooling", "matching")
NORMS = ("norm", "codes_norm", "judges_norm")
NUMBERS = (*DISTANCES, *ADVERSARIAL, "telling", "in_tune", *NORMS)


class Captured(NamedTuple):
    """A step for batches of one shape, and where it reads them."""

    graph: torch.cuda.CUDAGraph
    audio: Tensor  # (rows, samples)
    num_groups: Tensor  # (rows,)


class Duel:
    """Trains both sides, a step of each at a time, without waiting for the device.

    Captured, a step is one graph for each shape of batch, and another for it once the judges
    count: some thousand small kernels take longer to launch than to run. What changes from step to
    step lies in tensors that the graph reads, and numbers for the log are summed on the device.

    Args:
        trainee: on its device.
        hp: the table ``second_stage`` of recipes/codec/config.toml.
        captured: on a CUDA device: capture steps as graphs; several processes can't, as they
            exchange gradients within a step.
    """

    def __init__(self, trainee: DecoderTrainee, hp: dict[str, Any], *, captured: bool) -> None:
        self.trainee, self.hp, self.captured = trainee, hp, captured
        self.ranks = ranks = trainee.ranks
        codec, judges = trainee.codec, trainee.judges
        settings = {"weight_decay": hp["weight_decay"], "ema": hp["ema"], "betas": BETAS}
        settings["ranks"] = ranks
        self.voice: Run[Codec] = Run(codec, codec, lr=hp["lr"], apart=codec.code_makers, **settings)
        self.judges: Run[Discriminators] = Run(judges, judges, lr=hp["judges_lr"], **settings)
        self.device = self.voice.device
        rate, decoder = codec.config.sample_rate, codec.config.decoder
        self.spectral = SpectralLoss(rate).to(self.device)
        self.loudness = LoudnessLoss(rate).to(self.device)
        self.consistency = ConsistencyLoss(decoder.window, decoder.hop, ranks).to(self.device)
        # rows whose source is told the pitch: all at first, for it can't read yet
        self.forced = torch.ones((), device=self.device)
        self.totals = torch.zeros(len(NUMBERS), device=self.device)
        self.counts = Counter[str]()
        self.graphs = dict[tuple[tuple[int, ...], bool], Captured]()
        # graphs run one after another, so what one works in serves the next one too
        if captured:
            self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # no hints
            self.pool = torch.cuda.graph_pool_handle()

    @property
    def contested(self) -> bool:
        """Whether there are judges in this run."""
        return bool(self.hp["discriminators"])

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.voice.step

    def advance(self, audio: Tensor, num_groups: Tensor, pace: float = 1.0) -> None:
        """Take one step; one whose gradient is broken leaves weights as they are.

        Args:
            audio: (rows, samples) of this process, a multiple of the codec's frame.
            num_groups: (rows,) int64, how many groups each row is decoded from.
            pace: what the learning rates are multiplied with; codes begin more slowly.
        """
        hp, judged = self.hp, self.contested and self.step >= self.hp["head_start"]
        codes_pace = pace * min((self.step + 1) / hp["codes_warmup"], 1.0) ** 2
        lrs = [hp["lr"] * pace, hp["codes_lr"] * codes_pace]
        self.voice.begin_step(*lrs[: len(self.voice.parts)])
        if self.contested:
            self.judges.begin_step(hp["judges_lr"] * pace)
        self.forced.fill_(max(0.0, 1 - self.voice.step / hp["pitch_told"]))
        if self.captured:
            self.replay(audio, num_groups, judged)
        else:
            self.exchange(audio, num_groups, judged)
        absent: tuple[str, ...] = () if judged else ADVERSARIAL
        if not self.contested:
            absent += ("telling", "judges_norm")
        if len(self.voice.parts) == 1:
            absent += ("codes_norm",)
        self.counts.update(name for name in NUMBERS if name not in absent)

    def exchange(self, audio: Tensor, num_groups: Tensor, judged: bool) -> None:
        """Do the device's share of a step: the same kernels whatever the numbers are."""
        trainee, clip = self.trainee, self.hp["grad_clip"]
        with self.halved():
            said = trainee.speak(*trainee.hear(audio), num_groups, audio, self.forced)
            recorded = trainee.in_time(audio)
        parts = self.compare(said, recorded) | {"pitch": said.pitch, "in_tune": said.in_tune}
        if self.contested:
            with self.halved():
                told = trainee.tell(torch.cat([recorded, said.samples.detach()]))
            parts["telling"] = telling_loss(told)
            (parts["judges_norm"],) = self.judges.descend(parts["telling"], clip)
        terms = DISTANCES + ADVERSARIAL if judged else DISTANCES
        if judged:
            with self.halved():
                told = trainee.tell(torch.cat([recorded, said.samples]))
            parts |= {"fooling": fooling_loss(told), "matching": matching_loss(told, self.ranks)}
        loss = torch.stack([self.hp[f"{name}_weight"] * parts[name] for name in terms]).sum()
        norms = self.voice.descend(loss, clip)
        parts |= dict(zip(("norm", "codes_norm"), norms, strict=False))
        absent = torch.zeros_like(loss)
        self.totals += torch.stack([parts.get(name, absent).detach() for name in NUMBERS])

    def compare(self, said: Said, recorded: Tensor) -> dict[str, Tensor]:
        """Return each distance between what was said and the recording."""
        far = self.spectral(said.samples, recorded, self.ranks)._asdict()
        with self.halved():
            far["hearing"] = self.trainee.hear_apart(said.samples, recorded)
        far["loudness"] = self.loudness(said.samples, recorded)
        return {**far, "consistency": self.consistency(said.spectra, said.samples)}

    def halved(self) -> torch.autocast:
        """Compute in bfloat16 where that is fast; a cache would outlive a capture."""
        kind = self.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda", cache_enabled=False)

    def replay(self, audio: Tensor, num_groups: Tensor, judged: bool) -> None:
        """Do what ``exchange`` does by the graph for such batches; the first one captures it."""
        key = (*audio.shape,), judged
        if key not in self.graphs:
            self.graphs[key] = self.capture(audio.clone(), num_groups.clone(), judged)
        graph, heard, kept = self.graphs[key]
        heard.copy_(audio)
        kept.copy_(num_groups)
        graph.replay()

    def capture(self, audio: Tensor, num_groups: Tensor, judged: bool) -> Captured:
        """Capture ``exchange`` after a rehearsal; the graph will read these two tensors."""
        # a side stream, one for rehearsal and capture: gradients are summed where they were first
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.rehearse(audio, num_groups, judged)
        graph = torch.cuda.CUDAGraph()
        with (
            self.voice.captured(),
            self.judges.captured(),
            torch.cuda.graph(graph, pool=self.pool, stream=self.stream),
        ):
            self.exchange(audio, num_groups, judged)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return Captured(graph, audio, num_groups)

    def rehearse(self, audio: Tensor, num_groups: Tensor, judged: bool, times: int = 3) -> None:
        """Do steps that don't count: kernels get chosen, and the optimizers' states made."""
        totals = self.totals.clone()
        with self.voice.rehearsal(), self.judges.rehearsal():
            for _ in range(times):
                self.exchange(audio, num_groups, judged)
        self.totals.copy_(totals)

    def read(self) -> dict[str, float]:
        """Return the mean of each number since the last call; this waits for all devices."""
        totals = dict(zip(NUMBERS, self.ranks.mean(self.totals).tolist(), strict=True))
        means = {name: totals[name] / count for name, count in self.counts.items()}
        self.totals.zero_()
        self.counts.clear()
        return means

    def save(self, path: Path) -> None:
        """Write all that the next step depends on: both sides at once, so they are of one step."""
        if self.ranks.leads:
            write_kept({"voice": self.voice.state_dict(), "judges": self.judges.state_dict()}, path)

    def load(self, path: Path) -> bool:
        """Go on from what ``save`` wrote; return whether there was anything.

        Raises:
            ModelError: it is damaged, of another network, or of a version with two files.
        """
        if not path.exists():
            return False
        state = read_kept(path, self.voice.device)
        if "trainee" in state:
            raise ModelError(
                f"{path}: an older version kept it, with the judges in judges.pt beside it; this "
                "one keeps both in one file and can't go on from it: delete both, or give another "
                "folder by --out"
            )
        for name, run in (("judges", self.judges), ("voice", self.voice)):
            run.load_state_dict(state.get(name, {}), path)
        self.graphs.clear()  # they write to the optimizers' old states
        return True
