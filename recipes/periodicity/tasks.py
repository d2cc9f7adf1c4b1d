"""The tasks of train.py: what is drawn, what a network's outputs cost, and how they are scored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audiossm.codec import LoadedCodec
from audiossm.train.periodic import (
    FRAME_SIZE,
    NONE,
    SAMPLE_RATE,
    PitchScale,
    draw_beats,
    draw_clicks,
    draw_drums,
    draw_loops,
    draw_tones,
)
from audiossm.train.tracking import MODULUS, draw_brackets, draw_parity, draw_sums

SAMPLE_TONES = PitchScale(1 / 40, 1 / 8)  # cycles per sample
CODED_TONES = PitchScale(80.0, 400.0)  # Hz
SPEECH = PitchScale(60.0, 480.0)
MODULI = (2, 3, 4, 8)
TEST_PERIODS = (8, 12, 20, 32)  # frames of a loop
PROMPT, MOST = 3, 20  # periods: heard, and continued


class Rows(NamedTuple):
    """Drawn rows: ``x`` (rows, frames[, channels]) and ``y`` (rows, frames[, ...])."""

    x: Tensor
    y: Tensor


class Setting(NamedTuple):
    """Where tasks come from."""

    device: torch.device
    codec: LoadedCodec | None
    speech: Path | None


def encode(codec: LoadedCodec, audio: Tensor, at_once: int = 256) -> Tensor:
    """Return what the decoder gets of a codec's codes, (rows, frames, latent_dim)."""
    with torch.no_grad():
        network = codec.network
        parts = [network.quantiser.decode(network.encode(x)) for x in audio.split(at_once)]
    return torch.cat(parts)


class Task:
    """What each task has: numbers of inputs (``symbols`` or ``channels``) and of outputs.

    Args:
        setting: where it comes from.
        hp: its table of config.toml, with what ``[train]`` has for all.
    """

    symbols = 0
    channels = 0
    outputs = 0
    drawn_aside = False  # from a generator of its own, on the CPU

    def __init__(self, setting: Setting, hp: Mapping[str, Any]) -> None:
        self.setting, self.hp = setting, hp

    def draw(self, rows: int, frames: int) -> Rows:
        """Draw rows to learn from."""
        raise NotImplementedError

    def loss(self, network, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """Return what to lower; only frames below ``asked``, a tensor, are asked for."""
        raise NotImplementedError

    def score(self, network, frames: int, rows: int) -> dict[str, float]:
        """Return the figures of a network that learned from so many frames."""
        raise NotImplementedError


def ask(y: Tensor, asked: Tensor) -> Tensor:
    """Return labels (rows, frames, ...) of which only the first frames are asked for."""
    places = torch.arange(y.shape[1], device=y.device).view(-1, *[1] * (y.dim() - 2))
    return torch.where(places < asked, y, NONE)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean over labels (...) that are asked for, of logits (..., classes)."""
    costs = F.cross_entropy(
        logits.flatten(0, -2),
        labels.flatten(),
        ignore_index=NONE,
        reduction="sum",
        label_smoothing=smoothing,
    )
    return costs / (labels != NONE).sum().clamp(min=1)


class Tracking(Task):
    """State tracking behind a start symbol; the answer is the label of the last symbol."""

    symbols, outputs = 10, MODULUS
    drawn_aside = True

    def __init__(self, setting: Setting, hp: Mapping[str, Any], name: str) -> None:
        super().__init__(setting, hp)
        self.name, self.rng = name, np.random.default_rng(0)

    def make(self, rng: np.random.Generator, rows: int, length: int, shortest: int | None) -> Rows:
        if self.name == "brackets":
            x, y = draw_brackets(rng, rows, length, shortest, again=4 if shortest else 1)
        else:
            x, y = (draw_parity if self.name == "parity" else draw_sums)(rng, rows, length)
        x = np.pad(x, ((0, 0), (1, 0)), constant_values=self.symbols - 1)
        y = np.pad(y, ((0, 0), (1, 0)), constant_values=NONE)
        return Rows(*(torch.from_numpy(part).to(self.setting.device) for part in (x, y)))

    def draw(self, rows: int, frames: int) -> Rows:
        return self.make(self.rng, rows, frames - 1, 3)

    def loss(self, network, x, y, asked):
        return cross_entropy(network(x), ask(y, asked), self.hp["smoothing"])

    def score(self, network, frames, rows):
        found = {}
        for length in (frames - 1, self.hp["length"]):
            length -= self.name == "sums" and length % 2 == 0  # an operator would be the last
            x, y = self.make(np.random.default_rng(1), rows, length, None)
            logits = torch.cat([network(part)[:, -1] for part in x.split(256)])
            right = (logits.argmax(-1) == y[:, -1]).float().mean().item()
            chance = 1 / 2 if self.name == "parity" else 1 / MODULUS
            found[f"accuracy_{length}"] = right
            found[f"scaled_{length}"] = (right - chance) / (1 - chance)
        return found


class Tones(Task):
    """The pitch of tones that lack their fundamental."""

    channels, scale, outputs = 1, SAMPLE_TONES, 96
    settled = 40  # frames of which nothing is asked: a period

    def draw(self, rows, frames):
        tone, pitch = draw_tones(rows, frames, self.scale.low, self.scale.high, self.setting.device)
        return Rows(tone.unsqueeze(2), pitch)

    def loss(self, network, x, y, asked):
        labels = self.scale.classify(y)[:, self.settled :]
        return cross_entropy(network(x)[:, self.settled :], labels)

    def score(self, network, frames, rows):
        found = {}
        for times in (1, 3):
            torch.manual_seed(1)
            x, y = self.draw(rows, times * frames)
            logits = torch.cat([network(part) for part in x.split(128)])
            right = self.scale.right(logits, y)[:, -frames // 2 :]
            found[f"rpa_{times * frames}"] = right.float().mean().item()
        return found


class CodedTones(Tones):
    """The same from a codec's frames."""

    channels, scale, settled = 32, CODED_TONES, 4

    def draw(self, rows, frames):
        low, high = self.scale.low / SAMPLE_RATE, self.scale.high / SAMPLE_RATE
        device, parts = self.setting.device, []
        for some in torch.arange(rows).split(512):
            tone, pitch = draw_tones(len(some), frames * FRAME_SIZE, low, high, device)
            coded = encode(self.setting.codec, 0.1 * tone)
            parts.append((coded, pitch[:, FRAME_SIZE // 2 :: FRAME_SIZE] * SAMPLE_RATE))
        return Rows(*(torch.cat(part) for part in zip(*parts, strict=True)))


class Loops(Task):
    """What repeats goes on after three periods that are heard."""

    channels = outputs = 4
    longest = 64

    def draw_periods(self, periods: Tensor, frames: int) -> Rows:
        x = draw_loops(periods, frames)
        return Rows(x, x)

    def draw(self, rows, frames):
        periods = torch.randint(8, self.longest + 1, (rows,), device=self.setting.device)
        return self.draw_periods(periods, frames)

    def loss(self, network, x, y, asked):
        heard = x + 0.1 * torch.randn_like(x)
        heard = heard * (torch.rand_like(x[..., :1]) > 0.1)
        # of the second half, half of the frames are what the network itself expected
        with torch.no_grad():
            said = F.pad(network(heard)[:, :-1], (0, 0, 1, 0))
        places = torch.arange(x.shape[1], device=x.device).view(1, -1, 1)
        own = (torch.rand_like(x[..., :1]) < 0.5) & (places >= x.shape[1] // 2)
        expected = network(torch.where(own, said, heard))[:, :-1]
        return (expected - y[:, 1:]).square().mean()

    def score(self, network, frames, rows):
        torch.manual_seed(1)
        device = self.setting.device
        errors, drifts = {}, {}
        for period in TEST_PERIODS:
            count = max(rows // 16, 2)
            total = (PROMPT + MOST) * period
            x, y = self.draw_periods(torch.full((count,), period, device=device), total)
            prompt = PROMPT * period
            said, state = network.step(x[:, :prompt], network.init_state(count))
            frame, outputs = said[:, -1:], []
            for _ in range(MOST * period):
                outputs.append(frame)
                frame, state = network.step(frame, state)
            said = torch.cat(outputs, dim=1).unflatten(1, (MOST, period))
            true = y[:, prompt:].unflatten(1, (MOST, period))
            power = (true - true.mean((1, 2), keepdim=True)).square().mean((2, 3))
            wrong = (said - true).square().mean((2, 3)) / power
            # the shift with the best correlation, from its first harmonic's angle
            turned = (
                torch.fft.rfft(said, dim=2)[:, :, 1] * torch.fft.rfft(true, dim=2)[:, :, 1].conj()
            )
            angle = turned.sum(-1).angle().abs() * 180 / torch.pi
            for at in (1, 5, MOST):
                errors.setdefault(at, []).append(wrong[:, at - 1].clamp(max=10).mean())
                drifts.setdefault(at, []).append(angle[:, at - 1].mean())
        found = {f"nmse_{at}": torch.stack(v).mean().item() for at, v in errors.items()}
        return found | {f"drift_{at}": torch.stack(v).mean().item() for at, v in drifts.items()}


class CodedLoops(Loops):
    """Drum loops as a codec's frames, whose values are scaled to a variance of 1."""

    channels = outputs = 32
    longest = 48
    mean: Tensor | None = None  # and ``spread``: of the first rows that are drawn
    spread: Tensor

    def draw_periods(self, periods, frames):
        codec = self.setting.codec
        x = torch.cat([encode(codec, draw_drums(some, frames)) for some in periods.split(256)])
        if self.mean is None:
            self.mean, self.spread = x.mean((0, 1)), x.std((0, 1)).clamp(min=1e-3)
        x = (x - self.mean) / self.spread
        return Rows(x, x)


class Beats(Task):
    """How many beats there were so far, modulo 2, 3, 4 and 8 at once."""

    channels, outputs = 1, sum(MODULI)

    def draw(self, rows, frames):
        return Rows(*draw_beats(rows, frames, self.setting.device))

    def loss(self, network, x, y, asked):
        parts = network(x).split(MODULI, dim=-1)
        costs = [
            cross_entropy(part, ask(y % k, asked)) for part, k in zip(parts, MODULI, strict=True)
        ]
        return torch.stack(costs).mean()

    def score(self, network, frames, rows):
        found = {}
        for times in (1, 2, 4):
            torch.manual_seed(1)
            x, y = self.draw(rows, times * frames)
            logits = torch.cat([network(part) for part in x.split(128)])
            last = times * frames // 4
            for part, k in zip(logits.split(MODULI, dim=-1), MODULI, strict=True):
                right = part.argmax(-1) == y % k
                found[f"mod{k}_{times * frames}"] = right[:, -last:].float().mean().item()
        return found


class CodedBeats(Beats):
    """The same from a codec's frames."""

    channels = 32

    def draw(self, rows, frames):
        parts = []
        for some in torch.arange(rows).split(512):
            audio, counts = draw_clicks(len(some), frames, self.setting.device)
            parts.append((encode(self.setting.codec, audio), counts))
        return Rows(*(torch.cat(part) for part in zip(*parts, strict=True)))


class Speech(Task):
    """The pitch of real speech from a codec's frames; the last output is whether there is one."""

    channels, outputs, scale = 32, 97, SPEECH

    def __init__(self, setting, hp):
        super().__init__(setting, hp)
        with np.load(setting.speech) as arrays:
            self.parts = {
                part: (
                    torch.from_numpy(arrays[f"{part}_frames"]).float().to(setting.device),
                    torch.from_numpy(
                        np.where(arrays[f"{part}_voiced"], arrays[f"{part}_pitch"], 0.0)
                    )
                    .float()
                    .to(setting.device),
                )
                for part in ("train", "dev")
            }

    def draw(self, rows, frames):
        x, y = self.parts["train"]
        starts = torch.randint(0, len(x) - frames, (rows, 1), device=x.device)
        places = starts + torch.arange(frames, device=x.device)
        return Rows(x[places], y[places])

    def loss(self, network, x, y, asked):
        logits, voice = network(x).split((self.scale.classes, 1), dim=-1)
        labels = torch.where(y > 0, self.scale.classify(y.clamp(min=1.0)), NONE)
        told = F.binary_cross_entropy_with_logits(voice.squeeze(2), (y > 0).float())
        return cross_entropy(logits, labels) + told

    def score(self, network, frames, rows):
        x, y = self.parts["dev"]
        count = len(x) // (4 * frames)
        x, y = (part[: count * 4 * frames].unflatten(0, (count, -1)) for part in (x, y))
        logits, voice = network(x).split((self.scale.classes, 1), dim=-1)
        voiced = y > 0
        right = self.scale.right(logits, y.clamp(min=1.0))[voiced].float().mean().item()
        told = ((voice.squeeze(2) > 0) == voiced).float().mean().item()
        return {"rpa": right, "voicing": told}


def make_task(name: str, setting: Setting, hp: Mapping[str, Any]) -> Task:
    """Return the task of a name in config.toml."""
    if name in ("parity", "sums", "brackets"):
        return Tracking(setting, hp, name)
    kinds = {
        "tones": Tones,
        "coded-tones": CodedTones,
        "loops": Loops,
        "coded-loops": CodedLoops,
        "beats": Beats,
        "coded-beats": CodedBeats,
        "speech": Speech,
    }
    return kinds[name](setting, hp)
