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
from audiossm.decoding.philox import draw_rows
from audiossm.decoding.sampling import CODES, ENDS, Sampling
from audiossm.errors import ConfigError, ShapeError
from audiossm.models.generator import Generator, GeneratorState
from audiossm.nn import mamba_blocks, map_state, where_state
from audiossm.nn.slots import BlockSlots

__all__ = ["SpeechSlots", "Said", "SlotScript"]

RING = 64  # steps that random numbers are drawn for at once


@dataclass(frozen=True)
class SlotScript:
    """What one slot is to say: a sentence, as ``SpeechSession`` says it, or its beginning.

    Attributes:
        units: (units, 3) int64 rows of the network's embeddings.
        longest: (units,) int64, frames that each lasts at most.
        vector: (d_voice,) float32 of the voice.
        pace: the logarithm of how much longer than usual phones are to be.
        seed: of all that is drawn.
        state: of the voice, of batch 1; None is the network's first one.
        sampling: how freely it is drawn, but for ``top_k``; None is that of the slots.
        thresholds: (units,) float64, of ``end_threshold``; None draws those of a text's first ones.
        first: the first unit that is to be said: those before it are looked at, only.
        is_whole: whether nothing follows; if not, units whose neighbours aren't known have to wait.
    """

    units: NDArray[np.int64]
    longest: NDArray[np.int64]
    vector: NDArray[np.float32]
    pace: float = 0.0
    seed: int = 0
    state: GeneratorState | None = None
    sampling: Sampling | None = None
    thresholds: NDArray[np.float64] | None = None
    first: int = 0
    is_whole: bool = True

    def num_ready(self, units_after: int) -> int:
        """Return how many units can be said now, if each is shaped by so many behind it."""
        waiting = 0 if self.is_whole else max(units_after, 1)
        return max(0, len(self.units) - self.first - waiting)


class Said(NamedTuple):
    """What a step made; the next step overwrites it.

    Attributes:
        samples: (slots, frame_size) float32; nothing where there is no sound.
        sounds: (slots,) bool: whether there is.
        codes: (slots, groups) int64 of the same frames; -1 of what a decoder had held back.
        unit: (slots,) int64: the unit that is said next, counted from the script's ``first``; as
            many as there are: all were said.
        steps: (slots,) int64: of the script until now; as many frames of units, until the last one
            was said.
    """

    samples: Tensor
    sounds: Tensor
    codes: Tensor
    unit: Tensor
    steps: Tensor


class SpeechSlots:
    """The generator and the codec's decoder for ``num_slots`` streams, advanced in place.

    Drawing, the way from unit to unit and the delay pattern are on the device, too: a step needs
    nothing from the host, and on a CUDA device it is one CUDA graph of all slots. A slot's numbers
    don't depend on the others. What is drawn is what ``SpeechSession`` draws: a text is said in the
    same way, but for what rounding does. Without gradients.

    Args:
        generator: the network, in evaluation mode, on its device.
        codec: that decodes; on the same device.
        num_slots: streams at most.
        max_units: of a script.
        sampling: how freely codes are drawn where a script doesn't say it; ``top_k`` is everyone's.
        state_dtype: of the layers' recurrent states: float32, or bfloat16 for half the memory.

    Attributes:
        num_rest: frames of sound that a decoder holds back, the last of them perhaps in part.

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
        groups = config.num_groups
        self.temperatures = torch.ones(num_slots, groups, dtype=torch.float64, device=device)
        self.groups = torch.arange(groups, device=device)
        self.num_rest = -(-codec.delay // codec.config.frame_size)
        width = config.backbone.d_model

        def counter() -> Tensor:
            return torch.zeros(num_slots, dtype=torch.int64, device=device)

        # the last unit's place is that of no text
        self.vectors = torch.zeros(num_slots, max_units + 1, width, device=device)
        self.longest = torch.ones(num_slots, max_units + 1, dtype=torch.int64, device=device)
        self.thresholds = torch.ones(num_slots, max_units + 1, dtype=torch.float64, device=device)
        self.who = torch.zeros(num_slots, 2, width, device=device)  # saying something, and nothing
        self.num_units, self.unit, self.age = counter(), counter(), counter()
        self.steps, self.tail, self.over = counter(), counter(), counter()
        self.survival = torch.ones(num_slots, dtype=torch.float64, device=device)
        self.late = torch.full(
            (num_slots, groups, groups), config.num_codes, dtype=torch.int64, device=device
        )
        self.last = torch.zeros(num_slots, groups, dtype=torch.int64, device=device)
        self.busy = torch.zeros(num_slots, dtype=torch.bool, device=device)
        self.whole = torch.zeros_like(self.busy)
        self.allowed = torch.ones_like(self.busy)
        # random numbers: those of the next steps, and how many of them a slot has used
        self.seed, self.drawn, self.used = counter(), counter(), counter()
        self.uniforms = torch.zeros(num_slots, RING, groups, dtype=torch.float64, device=device)
        self.num_steps = 0
        frame = codec.config.frame_size
        self.said = Said(
            torch.zeros(num_slots, frame, device=device),
            torch.zeros(num_slots, dtype=torch.bool, device=device),
            torch.zeros(num_slots, groups, dtype=torch.int64, device=device),
            self.unit,
            self.steps,
        )
        self.graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def begin(self, slots: Sequence[int], scripts: Sequence[SlotScript]) -> None:
        """Let slots begin scripts; what they said before, their decoders remember.

        Raises:
            ShapeError: a script without units or with more than ``max_units``, or as many scripts
                as there aren't slots.
        """
        place = self._tell(slots, scripts)
        told = np.stack(
            [[np.append(script.vector, pace) for pace in (script.pace, 0.0)] for script in scripts]
        ).astype(np.float32)
        self.who[place] = self.generator.voice(torch.from_numpy(told).to(self.device))
        self.seed[place] = self._numbers([script.seed for script in scripts])
        samplings = [script.sampling or self.sampling for script in scripts]
        temperatures = np.stack([s.temperatures(self.config.num_groups) for s in samplings])
        self.temperatures[place] = torch.from_numpy(temperatures).to(self.device).double()
        for number in (self.age, self.steps, self.tail):
            number[place] = 0
        self.survival[place] = 1.0
        self.late[place] = self.config.num_codes
        self.busy[place] = True
        self._draw_ahead(place)
        for layer, state in enumerate(self.blocks.state):
            for part, name in zip(state, state._fields, strict=True):
                part[place] = 0
                for slot, script in zip(slots, scripts, strict=True):
                    if script.state is not None:
                        begun = getattr(script.state.layers[layer], name)[0]
                        part[slot] = begun.to(part.dtype)

    @torch.no_grad()
    def extend(self, slots: Sequence[int], scripts: Sequence[SlotScript]) -> None:
        """Let slots go on with scripts that are known further, in the middle of them.

        The ``first`` of each is the unit that its slot is at.

        Raises:
            ShapeError: as in ``begin``.
        """
        self._tell(slots, scripts)

    @torch.no_grad()
    def drain(self, slots: Sequence[int]) -> None:
        """Bring out what the decoders of slots hold back that have said their scripts.

        That takes ``num_rest`` steps, whose samples are those of the last frame again.
        """
        place = self._numbers(slots)
        self.over[place] = self.num_rest
        self.busy[place] = self.num_rest > 0

    @torch.no_grad()
    def allow(self, allowed: Tensor) -> None:
        """Say which slots may go on: (slots,) bool; the others wait as they are."""
        self.allowed.copy_(allowed)

    def _numbers(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def _tell(self, slots: Sequence[int], scripts: Sequence[SlotScript]) -> Tensor:
        """Tell slots their units; return which they are, on the device."""
        if len(slots) != len(scripts):
            raise ShapeError(f"{len(scripts)} scripts for {len(slots)} slots")
        counts = [len(script.units) - script.first for script in scripts]
        if min(counts) < 1 or max(counts) > self.max_units:
            wrong = min(counts) if min(counts) < 1 else max(counts)
            raise ShapeError(f"a script has 1 to {self.max_units} units, not {wrong}")
        size, most = max(len(script.units) for script in scripts), max(counts)
        units = np.zeros((len(slots), size, 3), np.int64)
        longest = np.ones((len(slots), most), np.int64)
        thresholds = np.full((len(slots), most), np.nan)
        for row, script in enumerate(scripts):
            units[row, : len(script.units)] = script.units
            longest[row, : counts[row]] = script.longest[script.first :]
            if script.thresholds is not None:
                thresholds[row, : counts[row]] = script.thresholds[script.first :]
        place = self._numbers(slots)
        read = self.generator.read(torch.from_numpy(units).to(self.device))
        firsts = self._numbers([script.first for script in scripts]).unsqueeze(1)
        shown = (firsts + torch.arange(most, device=self.device)).clamp(max=size - 1)
        read = read.gather(1, shown.unsqueeze(-1).expand(-1, -1, read.shape[-1]))
        none = self.generator.read(torch.zeros(1, self.config.window, 3).long().to(self.device))
        self.vectors[place, :most] = read
        self.vectors[place, -1] = none[0, self.config.units_before]
        self.longest[place, :most] = torch.from_numpy(longest).to(self.device)
        given = torch.from_numpy(thresholds).to(self.device)
        if any(script.thresholds is None for script in scripts):
            given = torch.where(given.isnan(), self._draw_thresholds(scripts, most), given)
        self.thresholds[place, :most] = given
        after = self.config.units_after
        self.num_units[place] = self._numbers([script.num_ready(after) for script in scripts])
        self.over[place] = 0
        whole = torch.tensor([script.is_whole for script in scripts], device=self.device)
        self.whole[place] = whole
        self.unit[place] = 0
        return place

    def _draw_thresholds(self, scripts: Sequence[SlotScript], count: int) -> Tensor:
        """Draw those of so many units from each script's ``first`` on: (scripts, count)."""
        firsts = self._numbers([script.first for script in scripts]).unsqueeze(1)
        seeds = self._numbers([script.seed for script in scripts]).unsqueeze(1)
        spreads = [(script.sampling or self.sampling).spread for script in scripts]
        spread = torch.tensor(spreads, dtype=torch.float64, device=self.device).unsqueeze(1)
        units = firsts + torch.arange(count, device=self.device)
        return 0.5 + spread * (draw_rows(seeds.expand_as(units), ENDS, units, 1)[..., 0] - 0.5)

    def _draw_ahead(self, place: Tensor) -> None:
        """Draw random numbers for the next steps of some slots."""
        steps = self.drawn[place].unsqueeze(1) + torch.arange(RING, device=self.device)
        seeds = self.seed[place].unsqueeze(1).expand_as(steps)
        self.uniforms[place] = draw_rows(seeds, CODES, steps, self.config.num_groups)
        self.used[place] = 0

    @torch.no_grad()
    def hush(self, slots: Sequence[int]) -> None:
        """Let slots say no more, and forget all that they remember: the next text is a new one."""
        place = self._numbers(slots)
        self.busy[place] = False
        self.drawn[place] = 0
        fresh = self.codec.decoder.init_state(1)

        def forget(part: Tensor, new: Tensor) -> Tensor:
            part[place] = new
            return part

        map_state(forget, self.decoder, fresh)

    @torch.no_grad()
    def step(self) -> Said:
        """Advance every slot that has something to say, and may, by a frame."""
        if self.num_steps % RING == 0:
            self._draw_ahead(torch.arange(self.num_slots, device=self.device))
        self.num_steps += 1
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
        live = self.busy & self.allowed & (telling | self.whole)
        place = torch.where(telling, self.unit, self.max_units)
        network = self.generator
        heard = network.rows[self.groups, self.late[:, -1]]
        x = F.embedding(heard, network.digits.weight).sum((-3, -2))
        age = torch.where(telling, self.age, 0).clamp(max=config.longest)
        x = x + network.ages(age) + self.vectors[rows, place] + self.who[rows, (~telling).long()]
        blocks = self.blocks
        blocks.x.copy_(x)
        blocks.live.copy_(live)
        blocks.advance(self.num_slots)
        outputs = network.head(blocks.y).float()
        logits = outputs[:, :-1].view(self.num_slots, config.num_groups, config.num_codes)
        codes = self._draw(logits, self.uniforms[rows, self.used])
        # groups whose first frame hasn't come, or whose last one was made, have none
        first = self.groups <= self.steps.unsqueeze(1)
        over = self.groups < self.tail.unsqueeze(1)
        codes = torch.where(first & ~over, codes, config.num_codes)
        late = torch.cat([self.late[:, 1:], codes.unsqueeze(1)], dim=1)
        self.late.copy_(torch.where(live.view(-1, 1, 1), late, self.late))
        for number in (self.steps, self.drawn, self.used):
            number.add_(live.long())
        self._sound(live)
        self._move_on(outputs[:, -1], live & telling)
        # the last groups of the last frame take as many steps more, and what is held back others
        self.tail.add_((live & self.whole & (self.unit >= self.num_units)).long())
        self.busy.logical_and_(self.tail < config.num_groups + self.over)

    def _sound(self, live: Tensor) -> None:
        """Decode the frames that are whole now."""
        sounds = live & (self.steps >= self.config.num_groups)
        # with all groups over, a decoder is given the last frame again
        again = (self.tail >= self.config.num_groups).unsqueeze(1)
        whole = torch.where(again, self.last, self.late.diagonal(dim1=1, dim2=2))
        whole = torch.where(sounds.unsqueeze(1), whole, 0).clamp(max=self.config.num_codes - 1)
        self.last.copy_(torch.where(sounds.unsqueeze(1), whole, self.last))
        latent = self.codec.quantiser.values(whole.unsqueeze(-1))
        samples, decoder = self.codec.decoder.step(latent, self.decoder)
        decoder = where_state(sounds, decoder, self.decoder)
        map_state(Tensor.copy_, self.decoder, decoder)
        self.said.samples.copy_(samples * sounds.unsqueeze(1))
        self.said.sounds.copy_(sounds)
        self.said.codes.copy_(torch.where(again, -1, whole))

    def _draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Do what ``choose_codes`` does, for each slot: (slots, groups)."""
        k = min(self.sampling.top_k, logits.shape[-1])
        values, likely = logits.topk(k, dim=-1)
        likely, order = likely.sort(dim=-1)
        values = values.gather(-1, order).double()
        values = values - values.amax(dim=-1, keepdim=True)
        cold = self.temperatures == 0
        heat = torch.where(cold, 1.0, self.temperatures).unsqueeze(-1)
        sums = (values / heat).exp().cumsum(-1)
        chosen = (sums <= uniforms.unsqueeze(-1) * sums[..., -1:]).sum(-1).clamp(max=k - 1)
        chosen = torch.where(cold, values.argmax(-1), chosen)
        return likely.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)

    def _move_on(self, logit: Tensor, talking: Tensor) -> None:
        """Count a frame of the unit, and begin the next one if it is over."""
        survival = self.survival * torch.sigmoid(-logit.double())
        age = self.age + 1
        place = torch.where(talking, self.unit, self.max_units).unsqueeze(1)
        most = self.longest.gather(1, place).squeeze(1)
        threshold = self.thresholds.gather(1, place).squeeze(1)
        ends = talking & ((1 - survival >= threshold) | (age >= most))
        self.unit.add_(ends.long())
        self.age.copy_(torch.where(ends, 0, torch.where(talking, age, self.age)))
        self.survival.copy_(torch.where(ends, 1.0, torch.where(talking, survival, self.survival)))
