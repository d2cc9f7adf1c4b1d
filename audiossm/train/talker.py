"""The generator while it is trained: with a table of voices, and told what it should have said."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from audiossm.checkpoint import ModelFolder
from audiossm.errors import ConfigError
from audiossm.models.generator import Generator, GeneratorConfig, delay_codes
from audiossm.train.deepen import begin_generator
from audiossm.train.ranks import ALONE, Ranks
from audiossm.train.recitals import UNTOLD, Recital

__all__ = ["Talker", "capture", "compile_layers", "find_losses", "score_talker"]

VOICES_FILE = "voices.safetensors"
VOICE_STD = 0.1


class Talker(nn.Module):
    """The generator over whole rows, and everybody's voice.

    Args:
        config: of the generator.
        num_speakers: rows of the table of voices, beside that of nobody, which stays zero.
        noise: part of the frames whose codes are heard as random ones or as none: what it says
            later isn't what anybody said either. Half of the rows have twice as many, half none.
        ranks: the processes that have a part of each recital's rows.

    Raises:
        ConfigError: more than half of the frames.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        num_speakers: int,
        noise: float = 0.0,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        if not 0 <= noise <= 0.5:
            raise ConfigError(f"train.noise is {noise:g}, must be from 0 to 0.5")
        self.generator, self.noise, self.ranks = Generator(config), noise, ranks
        self.voices = nn.Embedding(1 + num_speakers, config.d_voice, padding_idx=0)
        nn.init.normal_(self.voices.weight[1:], std=VOICE_STD)

    def forward(self, recital: Recital) -> Tensor:
        """Return the mean losses, in nats: of each group's codes, then of the units' ends."""
        none = self.generator.config.num_codes
        targets = delay_codes(recital.codes.long(), none)[:, : recital.codes.shape[1]]
        heard = F.pad(targets, (0, 0, 1, 0), value=none)[:, :-1]
        if self.training:
            heard = self.mishear(heard)
        with self.ranks.apart(heard.device):
            outputs = self.listen(recital, heard)
            logits = outputs[..., :-1].view(*targets.shape, none)
            return find_losses(logits, targets, outputs[..., -1], recital.ends)

    def listen(self, recital: Recital, heard: Tensor) -> Tensor:
        """Return what the network puts out at each step, told the text and ``heard`` codes."""
        net = self.generator
        seen = net.read(recital.units.long())
        places = recital.place.long().unsqueeze(-1).expand(-1, -1, seen.shape[-1])
        voice = self.voices(recital.who)
        x = net.embed(heard, seen.gather(1, places), recital.age.long(), voice, recital.pace)
        return net.step(x, net.init_state(len(x)))[0]

    def mishear(self, codes: Tensor) -> Tensor:
        """Replace the codes of frames of half of the rows: by random ones or by none."""
        none = self.generator.config.num_codes
        rows, frames, groups = codes.shape
        chance = self.ranks.rand(rows, frames, 1, device=codes.device)
        hit = chance < 2 * self.noise
        hit &= self.ranks.rand(rows, 1, 1, device=codes.device) < 0.5
        heard = codes.masked_fill(hit, none)
        others = self.ranks.randint(none, rows, frames, groups, device=codes.device)
        return torch.where(hit & (chance < self.noise), others, heard)

    def save_voices(self, folder: Path, names: Sequence[str], paces: Tensor) -> None:
        """Write ``voices`` (names, d_voice) and mean ``paces`` (names,), float32, to one file.

        Args:
            folder: where ``VOICES_FILE`` goes.
            names: in the order of the table; the metadata has them as a JSON list, ``names``.
            paces: of each.
        """
        voices = self.voices.weight[1:].detach().to("cpu", torch.float32).contiguous()
        metadata = {"names": json.dumps(list(names), ensure_ascii=False)}
        data = save_tensors({"voices": voices, "paces": paces.float()}, metadata)
        (folder / VOICES_FILE).write_bytes(data)

    def begin_from(self, name: str, speakers: Sequence[str]) -> None:
        """Take the weights of a generator, and of the voices beside its folder those of ours.

        It may have fewer layers: new ones then stand between them (``deepen``).

        Raises:
            ConfigError: it has other sizes.
            ModelError: there is no such model.
        """
        folder = ModelFolder.open(name)
        begin_generator(self.generator, folder)
        beside = folder.path.parent / VOICES_FILE
        if not beside.exists():
            return
        with safe_open(beside, "pt") as file, torch.no_grad():
            names, voices = json.loads(file.metadata()["names"]), file.get_tensor("voices")
            if voices.shape[1] != self.voices.embedding_dim:
                raise ConfigError(
                    f"{beside}: voices of {voices.shape[1]} numbers, but this generator's have "
                    f"{self.voices.embedding_dim}"
                )
            theirs = dict(zip(names, voices, strict=True))
            for number, speaker in enumerate(speakers, 1):
                # at another speed it begins as the same one
                voice = theirs.get(speaker, theirs.get(speaker.partition("@")[0]))
                if voice is not None:
                    self.voices.weight[number] = voice


def find_losses(logits: Tensor, targets: Tensor, ending: Tensor, ends: Tensor) -> Tensor:
    """Return mean losses in nats: of each group's codes, then of the units' ends.

    Args:
        logits: (rows, frames, groups, codes).
        targets: (rows, frames, groups); ``codes``, beyond the last one, isn't counted.
        ending: (rows, frames): logits of a unit's end.
        ends: (rows, frames): as ``Recital.ends``.
    """
    losses = [
        F.cross_entropy(guessed.flatten(0, 1), codes.flatten(), ignore_index=logits.shape[-1])
        for guessed, codes in zip(logits.unbind(2), targets.unbind(2), strict=True)
    ]
    told = ends != UNTOLD
    right = ends.clamp(min=0).float()
    missed = F.binary_cross_entropy_with_logits(ending, right, reduction="none")
    losses.append((missed * told).sum() / told.sum().clamp(min=1))
    return torch.stack(losses)


def compile_layers(talker: Talker) -> None:
    """Compile each layer's step."""
    for layer in talker.generator.blocks():
        layer.step = torch.compile(layer.step, dynamic=False)  # type: ignore[method-assign]


def capture(talker: Talker, sample: Recital) -> None:
    """Compile the layers, then capture the trainee, forward and backward, as CUDA graphs.

    Its forward replays them from then on, while it is training.

    Args:
        talker: on a CUDA device, training.
        sample: such recitals as there will be, on the device.
    """
    compile_layers(talker)
    halved = torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
    # what is drawn here mustn't count, or a run that was stopped would go on with other numbers
    with torch.random.fork_rng([sample.who.device]), halved:
        talker(sample)  # compiles
        # torch's hint knows tensors only, but it flattens what it is given
        torch.cuda.make_graphed_callables(talker, (sample,), allow_unused_input=True)  # type: ignore[arg-type]


@torch.no_grad()
def score_talker(
    talker: Talker,
    dev: Sequence[tuple[Recital, Recital, Recital]],
    strangers: Sequence[Recital] = (),
) -> dict[str, float]:
    """Return bits per frame of each group and of the units' ends.

    Args:
        talker: on its device.
        dev: of ``Recitals.dev_ways``: ``_untold`` is what a group costs without the text,
            ``_alone`` without text and voice.
        strangers: of people who are in no training, without text and voice: ``_strangers``.
    """
    device = talker.voices.weight.device
    talker.eval()
    ways = dict(zip(("", "_untold", "_alone"), zip(*dev, strict=True), strict=True))
    if strangers:
        ways["_strangers"] = tuple(strangers)
    scores = dict[str, float]()
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for way, recitals in ways.items():
            losses = torch.stack([talker(recital.to(device)) for recital in recitals])
            *bits, ends = (losses / math.log(2)).mean(0).tolist()
            scores |= {f"dev_bits_{group}{way}": value for group, value in enumerate(bits)}
            if not way:
                scores["dev_ends"] = ends
    return {name: round(value, 4) for name, value in scores.items()}
