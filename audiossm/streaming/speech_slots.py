"""Many voices at once: scripts in slots of one batched state, a frame of sound for each a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from audiossm.codec import Codec
from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError, ShapeError
from audiossm.models.generator import Generator, GeneratorState
from audiossm.nn import mamba_blocks, map_state, where_state
from audiossm.nn.slots import BlockSlots

__all__ = ["SpeechSlots", "Said", "SlotScript"]

# what random numbers are for
CODES, ENDS = 0, 1
# odd numbers of SplitMix64 (Steele et al., OOPSLA 2014), as signed ones
GAMMA, MIX_1, MIX_2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


@dataclass(frozen=True)
class SlotScript:
    """What one slot is to say: a sentence, as ``SpeechSession`` says it.

    Attributes:
        units: (units, 3) int64 rows of the network's embeddings.
        longest: (units,) int64, frames that each lasts at most.
        vector: (d_voice,) float32 of the voice.
        pace: the logarithm of how much longer than usual phones are to be.
        seed: of all that is drawn.
        state: of the voice, of batch 1; None is the network's first one.
    """

    units: NDArray[np.int64]
    longest: NDArray[np.int64]
    vector: NDArray[np.float32]
    pace: float = 0.0
    seed: int = 0
    state: GeneratorState | None = None


class Said(NamedTuple):
    """What a step made; the next step overwrites it.

    Attributes:
        samples: (slots, frame_size) float32; nothing where there is no sound.
        sounds: (slots,) bool: whether there is.
        codes: (slots, groups) int64 of the same frames.
        unit: (slots,) int64: the unit that is said next; as many as there are: all were said.
    """

    samples: Tensor
    sounds: Tensor
    codes: Tensor
    unit: Tensor


class SpeechSlots:
    """The generator and the codec's decoder for ``num_slots`` streams, advanced in place.

    Drawing, the way from unit to unit and the delay pattern are on the device, too: a step needs
    nothing from the host, and on a CUDA device it is one CUDA graph of all slots. A slot's numbers
    don't depend on the others. Random numbers are a function of seed and step, but not the ones
    that ``SpeechSession`` draws, so another device says a text in another way. Without gradients.

    Args:
        generator: the network, in evaluation mode, on its device.
        codec: that decodes; on the same device.
        num_slots: streams at most.
        max_units: of a script.
        sampling: how freely codes are drawn, the same for all.
        state_dtype: of the layers' recurrent states: float32, or bfloat16 for half the memory.

    Raises:
        ConfigError: no slot, or no unit.
    """

    def __init__(
        self,
        generator: Generator,
        codec: Codec,
        *,
        num_slots: int,
        max_units: int = 256,
        sampling: Sampling | None = None,
        state_dtype: torch.dtype = torch.float32,
    ) -> None:
        if num_slots < 1 or max_units < 1:
            raise ConfigError(f"{num_slots} slots of {max_units} units: must be 1 or more each")
        self.generator, self.codec, self.num_slots = generator, codec, num_slots
        self.max_units, self.sampling = max_units, sampling or Sampling()
        config = self.config = generator.config
        device = self.device = generator.head.weight.device
        self.blocks = BlockSlots(
            mamba_blocks(generator.blocks(), "slots of speech"),
            generator.norm_f,
            num_slots=num_slots,
            state_dtype=state_dtype,
        )
        self.decoder = codec.decoder.init_state(num_slots)
        self.temperatures = torch.tensor(
            self.sampling.temperatures(config.num_groups), device=device
        )
        self.groups = torch.arange(config.num_groups, device=device)
        width = config.backbone.d_model

        def counter() -> Tensor:
            return torch.zeros(num_slots, dtype=torch.int64, device=device)

        # the last unit's place is that of no text
        self.vectors = torch.zeros(num_slots, max_units + 1, width, device=device)
        self.longest = torch.ones(num_slots, max_units + 1, dtype=torch.int64, device=device)
        self.who = torch.zeros(num_slots, 2, width, device=device)  # saying something, and nothing
        self.seed, self.num_units, self.unit = counter(), counter(), counter()
        self.age, self.steps, self.tail = counter(), counter(), counter()
        self.survival = torch.ones(num_slots, device=device)
        groups = config.num_groups
        self.late = torch.full(
            (num_slots, groups, groups), config.num_codes, dtype=torch.int64, device=device
        )
        self.busy = torch.zeros(num_slots, dtype=torch.bool, device=device)
        frame = codec.config.frame_size
        self.said = Said(
            torch.zeros(num_slots, frame, device=device),
            torch.zeros(num_slots, dtype=torch.bool, device=device),
            torch.zeros(num_slots, groups, dtype=torch.int64, device=device),
            self.unit,
        )
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def begin(self, slots: Sequence[int], scripts: Sequence[SlotScript]) -> None:
        """Let slots begin scripts; what they said before, their decoders remember.

        Raises:
            ShapeError: a script without units or with more than ``max_units``, or as many scripts
                as there aren't slots.
        """
        if len(slots) != len(scripts):
            raise ShapeError(f"{len(scripts)} scripts for {len(slots)} slots")
        most = max(len(script.units) for script in scripts)
        if min(len(script.units) for script in scripts) < 1 or most > self.max_units:
            raise ShapeError(f"a script has 1 to {self.max_units} units, not {most}")
        units = np.zeros((len(slots), most, 3), np.int64)
        longest = np.ones((len(slots), most), np.int64)
        for row, script in enumerate(scripts):
            units[row, : len(script.units)] = script.units
            longest[row, : len(script.units)] = script.longest
        place = torch.tensor(slots, device=self.device)
        read = self.generator.read(torch.from_numpy(units).to(self.device))
        none = self.generator.read(torch.zeros(1, self.config.window, 3).long().to(self.device))
        self.vectors[place, :most] = read
        self.vectors[place, -1] = none[0, self.config.units_before]
        self.longest[place, :most] = torch.from_numpy(longest).to(self.device)
        told = np.stack(
            [[np.append(script.vector, pace) for pace in (script.pace, 0.0)] for script in scripts]
        ).astype(np.float32)
        self.who[place] = self.generator.voice(torch.from_numpy(told).to(self.device))
        self.seed[place] = torch.tensor([script.seed for script in scripts], device=self.device)
        counts = [len(script.units) for script in scripts]
        self.num_units[place] = torch.tensor(counts, device=self.device)
        for number in (self.unit, self.age, self.steps, self.tail):
            number[place] = 0
        self.survival[place] = 1.0
        self.late[place] = self.config.num_codes
        self.busy[place] = True
        for layer, state in enumerate(self.blocks.state):
            for part, name in zip(state, state._fields, strict=True):
                part[place] = 0
                for slot, script in zip(slots, scripts, strict=True):
                    if script.state is not None:
                        begun = getattr(script.state.layers[layer], name)[0]
                        part[slot] = begun.to(part.dtype)

    @torch.no_grad()
    def hush(self, slots: Sequence[int]) -> None:
        """Let slots say no more, and forget all that their decoders remember."""
        place = torch.tensor(slots, device=self.device)
        self.busy[place] = False
        fresh = self.codec.decoder.init_state(1)

        def forget(part: Tensor, new: Tensor) -> Tensor:
            part[place] = new
            return part

        map_state(forget, self.decoder, fresh)

    @torch.no_grad()
    def step(self) -> Said:
        """Advance every slot that has something to say by a frame."""
        if self.device.type != "cuda":
            self._advance()
            return self.said
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()
        return self.said

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture a step; nobody advances by it."""
        busy = self.busy.clone()
        self.busy.fill_(False)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no hint for it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._advance()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        self.busy.copy_(busy)
        return graph

    def _advance(self) -> None:
        config, rows = self.config, torch.arange(self.num_slots, device=self.device)
        telling = self.unit < self.num_units
        place = torch.where(telling, self.unit, self.max_units)
        network = self.generator
        heard = network.rows[self.groups, self.late[:, -1]]
        x = F.embedding(heard, network.digits.weight).sum((-3, -2))
        age = torch.where(telling, self.age, 0).clamp(max=config.longest)
        x = x + network.ages(age) + self.vectors[rows, place] + self.who[rows, (~telling).long()]
        blocks = self.blocks
        blocks.x.copy_(x)
        blocks.live.copy_(self.busy)
        blocks.advance(self.num_slots)
        outputs = network.head(blocks.y).float()
        logits = outputs[:, :-1].view(self.num_slots, config.num_groups, config.num_codes)
        codes = self._draw(logits)
        # groups whose first frame hasn't come, or whose last one was made, have none
        first = self.groups <= self.steps.unsqueeze(1)
        over = self.groups < self.tail.unsqueeze(1)
        codes = torch.where(first & ~over, codes, config.num_codes)
        late = torch.cat([self.late[:, 1:], codes.unsqueeze(1)], dim=1)
        self._move_on(outputs[:, -1], telling)
        busy = self.busy
        self.late.copy_(torch.where(busy.view(-1, 1, 1), late, self.late))
        self.steps.add_(busy.long())
        sounds = busy & (self.steps >= config.num_groups)
        whole = late.diagonal(dim1=1, dim2=2)
        whole = torch.where(sounds.unsqueeze(1), whole, 0).clamp(max=config.num_codes - 1)
        latent = self.codec.quantiser.values(whole.unsqueeze(-1))
        samples, decoder = self.codec.decoder.step(latent, self.decoder)
        decoder = where_state(sounds, decoder, self.decoder)
        map_state(Tensor.copy_, self.decoder, decoder)
        self.said.samples.copy_(samples * sounds.unsqueeze(1))
        self.said.sounds.copy_(sounds)
        self.said.codes.copy_(whole)
        # the last groups of the last frame take as many steps more
        self.tail.add_((busy & (self.unit >= self.num_units)).long())
        self.busy.logical_and_(self.tail < config.num_groups)

    def _draw(self, logits: Tensor) -> Tensor:
        """Draw from the likeliest codes of each group of each slot."""
        values, likely = logits.topk(min(self.sampling.top_k, logits.shape[-1]), dim=-1)
        heat = self.temperatures.clamp(min=1e-6).view(1, -1, 1)
        sums = ((values - values[..., :1]) / heat).exp().cumsum(-1)
        uniform = self._uniform(CODES, self.steps.unsqueeze(1), self.groups)
        chosen = (sums <= uniform.unsqueeze(-1) * sums[..., -1:]).sum(-1)
        return likely.gather(-1, chosen.clamp(max=likely.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)

    def _move_on(self, logit: Tensor, telling: Tensor) -> None:
        """Count a frame of the unit, and begin the next one if it is over."""
        talking = self.busy & telling
        survival = self.survival * torch.sigmoid(-logit)
        age = self.age + 1
        uniform = self._uniform(ENDS, self.unit.unsqueeze(1), self.groups[:1]).squeeze(1)
        threshold = 0.5 + self.sampling.spread * (uniform - 0.5)
        place = torch.where(telling, self.unit, self.max_units)
        most = self.longest.gather(1, place.unsqueeze(1)).squeeze(1)
        ends = talking & ((1 - survival >= threshold) | (age >= most))
        self.unit.add_(ends.long())
        self.age.copy_(torch.where(ends, 0, torch.where(talking, age, self.age)))
        self.survival.copy_(torch.where(ends, 1.0, torch.where(talking, survival, self.survival)))

    def _uniform(self, kind: int, step: Tensor, index: Tensor) -> Tensor:
        """Return a number in [0, 1) for each slot and index, a function of seed, kind and step."""
        mixed = mix(self.seed.unsqueeze(1) * 2 + kind)
        mixed = mix(mixed + step)
        mixed = mix(mixed + index)
        return ((mixed >> 40) & 0xFFFFFF).float() * 2.0**-24


def mix(number: Tensor) -> Tensor:
    """SplitMix64's next number of int64 ``number``; products wrap around."""
    number = number + GAMMA
    number = (number ^ ((number >> 30) & (2**34 - 1))) * MIX_1
    number = (number ^ ((number >> 27) & (2**37 - 1))) * MIX_2
    return number ^ ((number >> 31) & (2**33 - 1))
