"""Many streams' states of one recogniser side by side: a step advances any of them, in place."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.codec import Encoder, EncoderState
from audiossm.codec.convnext import list_blocks
from audiossm.errors import ConfigError, ShapeError
from audiossm.models.recogniser import Recogniser, RecogniserState
from audiossm.nn import GatedConv, LookAheadState, mamba_blocks, map_state
from audiossm.nn.slots import mix, step_projected
from audiossm_kernels import SsmState
from audiossm_kernels.choice import triton_wanted
from audiossm_kernels.conv import conv_step_
from audiossm_kernels.fused import add_norm_, gate_values

__all__ = ["RecogniserSlots", "SlotLabels", "SlotState"]

M = TypeVar("M", bound=nn.Module)

BLANK_ID = 0
FRESH = 1 << 16  # a bit above every label


class SlotState(NamedTuple):
    """One stream's state, taken out of its slot."""

    network: RecogniserState  # of batch 1
    previous: int  # label of the newest frame
    frame: int  # label frames seen, from minus the look-ahead


class SlotLabels:
    """What a step found: on the way from the device until somebody asks."""

    def __init__(
        self,
        packed: Tensor,
        log_probs: Tensor | None,
        events: "tuple[torch.cuda.Event, torch.cuda.Event] | None",
    ) -> None:
        self._packed, self._log_probs, self._events = packed, log_probs, events

    @property
    def is_done(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._events is None or bool(self._events[1].query())  # type: ignore[no-untyped-call]

    @property
    def device_ms(self) -> float:
        """Milliseconds from the begin of a step to its end on a CUDA device; else 0."""
        self.wait()
        return 0.0 if self._events is None else self._events[0].elapsed_time(self._events[1])

    def wait(self) -> None:
        """Wait until the device is done."""
        if self._events is not None:
            self._events[1].synchronize()

    def log_probs(self) -> Tensor:
        """Wait, then return (rows, label frames, symbols) on the CPU, if they were wanted.

        The symbols are the pieces, then the blank and the phones of a network that hears these.
        """
        self.wait()
        assert self._log_probs is not None
        return self._log_probs

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Wait, then return three tensors (rows, label frames) on the CPU.

        Returns:
            the best label, int32, -1 in a row where the network says what is no number; its
            log-probability, float32; and whether greedy decoding has a new piece there (no blank,
            no repeat), bool.
        """
        self.wait()
        codes, scores = self._packed[..., 0], self._packed[..., 1]
        labels = torch.where(codes < 0, codes, codes % FRESH)
        return labels, scores.contiguous().view(torch.float32), codes >= FRESH


class RecogniserSlots:
    """A recogniser with the states of up to ``num_slots`` streams on its device.

    A step takes one backbone frame of each of some streams. Their states are found by number, so
    nothing is gathered, and slots that aren't in a step cost memory and nothing else. On a CUDA
    device a step of a bucket of rows is one CUDA graph, captured when it is first used. What comes
    of a row depends on its slot alone, but for how sums of its bucket round; never on other rows.

    Args:
        network: in evaluation mode; left as it is.
        num_slots: streams at most.
        max_rows: streams in a step at most; all by default.
        buffer_frames: backbone frames of audio that wait on the device for each stream.
        state_dtype: of the recurrent states, without their angles: float32, or bfloat16 for half
            the memory.
        layer_dtype: of the backbone's layers; float32, or bfloat16, which makes a copy of them.
        tf32: on a CUDA device, let float32 products round their factors to 11 bits; those of the
            spectra never do.

    Raises:
        ConfigError: no slot, no row, or a network that isn't in evaluation mode.
    """

    def __init__(
        self,
        network: Recogniser,
        num_slots: int,
        *,
        max_rows: int | None = None,
        buffer_frames: int = 1,
        state_dtype: torch.dtype = torch.float32,
        layer_dtype: torch.dtype = torch.float32,
        tf32: bool = False,
    ) -> None:
        max_rows = num_slots if max_rows is None else min(max_rows, num_slots)
        if num_slots < 1 or max_rows < 1 or buffer_frames < 1:
            raise ConfigError(
                f"{num_slots} slots, {max_rows} rows and {buffer_frames} buffer_frames: must be 1 "
                "or more each"
            )
        if network.training:
            raise ConfigError("a network in slots must be in evaluation mode: call eval() first")
        self.network, self.config = network, network.config
        self.num_slots, self.max_rows, self.tf32 = num_slots, max_rows, tf32
        self.blocks = mamba_blocks(network.blocks(), "slots of a recogniser")
        self.convs = network.gated_convs()
        if self.blocks[0].norm.weight.dtype != layer_dtype:
            self.blocks = [cast_copy(block, layer_dtype) for block in self.blocks]
            self.convs = [cast_copy(conv, layer_dtype) for conv in self.convs]
        self.taps = (network.lookahead.weight + network.lookahead.delay).detach().contiguous()
        device = self.device = self.taps.device
        # one row more, which nobody has, for the rows that fill a bucket up
        self.state = make_rows(network.init_state(1), num_slots + 1, state_dtype)
        self.previous = torch.zeros(num_slots + 1, dtype=torch.int64, device=device)
        self.frame = torch.zeros(num_slots + 1, dtype=torch.int64, device=device)
        # rings of frames; the last row is silence
        self.buffer_frames, frame_size = buffer_frames, self.config.frame_size
        self.audio = torch.zeros(num_slots + 1, buffer_frames * frame_size, device=device)
        self.sources = torch.full((max_rows,), num_slots * buffer_frames, device=device)
        self.slots = torch.full((max_rows,), -1, device=device)
        self.packed = torch.zeros(max_rows, self.config.stack, 2, dtype=torch.int32, device=device)
        self.log_probs = torch.zeros(max_rows, self.config.stack, self.num_symbols, device=device)
        # the torch forms of the kernels look at their slots, which a graph can't
        self.captures = device.type == "cuda" and triton_wanted()
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.captures else None

    @property
    def num_symbols(self) -> int:
        """Log-probabilities of a label frame."""
        phones = self.network.phones
        return len(self.config.pieces) + (0 if phones is None else phones.num_symbols)

    @property
    def state_bytes(self) -> int:
        """Bytes of one stream's state."""
        total = 0

        def count(part: Tensor) -> Tensor:
            nonlocal total
            total += part[0].numel() * part.element_size()
            return part

        map_state(count, self.state)
        return total

    def bucket(self, count: int) -> int:
        """Return how many rows a step of ``count`` streams computes.

        It is a power of two up to 256, then one of four sizes from each power to the next.
        """
        step = max(1, (1 << (count - 1).bit_length()) // 8) if count > 256 else 0
        rows = -(-count // step) * step if step else 1 << (count - 1).bit_length()
        return min(self.max_rows, rows)

    def buckets(self) -> list[int]:
        """Return all sizes of a step, the smallest first."""
        sizes, count = [], 1
        while count <= self.max_rows:
            sizes.append(self.bucket(count))
            count = sizes[-1] + 1
        return sizes

    @torch.no_grad()
    def put(self, slots: Tensor, starts: Tensor, samples: Tensor) -> None:
        """Write samples into some streams' rings of audio; the device does it alone.

        Args:
            slots: (streams,) int64 on the CPU, no slot twice.
            starts: (streams,) int64 on the CPU, where in its ring each stream's samples begin.
            samples: (streams, samples) float32 on the CPU, no more than a ring has.

        Raises:
            ShapeError: another shape, or too many samples.
        """
        count, size = len(slots), self.audio.shape[1]
        if samples.dim() != 2 or len(samples) != count or samples.shape[1] > size:
            raise ShapeError(f"rings take ({count}, 0 to {size}) samples, got {(*samples.shape,)}")
        with self.in_stream():
            places = self.send(torch.stack([slots * size, starts]))
            within = torch.arange(samples.shape[1], device=self.device)
            within = places[0].unsqueeze(1) + (places[1].unsqueeze(1) + within) % size
            self.audio.view(-1).index_copy_(0, within.flatten(), self.send(samples).flatten())

    def step(self, slots: Tensor, samples: Tensor, log_probs: bool = False) -> SlotLabels:
        """Advance some streams by a frame that comes now: ``put`` into the first one, and ``take``.

        Args:
            slots: (streams,) int64 on the CPU, no slot twice.
            samples: (streams, frame_size) float32 on the CPU, in [-1, 1].
            log_probs: as in ``take``.

        Raises:
            ShapeError: another shape, no stream, or more than ``max_rows``.
        """
        if samples.shape != (len(slots), self.config.frame_size):
            raise ShapeError(
                f"a step takes ({len(slots)}, {self.config.frame_size}) samples, "
                f"got {(*samples.shape,)}"
            )
        heads = torch.zeros_like(slots)
        if 1 <= len(slots) <= self.max_rows:
            self.put(slots, heads, samples)
        return self.take(slots, heads, log_probs)

    @torch.no_grad()
    def take(self, slots: Tensor, heads: Tensor, log_probs: bool = False) -> SlotLabels:
        """Advance some streams by one backbone frame of their rings; the device goes on alone.

        Args:
            slots: (streams,) int64 on the CPU, no slot twice.
            heads: (streams,) int64 on the CPU, which frame of its ring; below 0 is silence.
            log_probs: whether those of all symbols are wanted, too.

        Raises:
            ShapeError: no stream, more than ``max_rows``, or another number of heads.
        """
        count = len(slots)
        if not 1 <= count <= self.max_rows or heads.shape != slots.shape:
            raise ShapeError(
                f"a step takes 1 to {self.max_rows} slots, got {(*slots.shape,)} and heads "
                f"{(*heads.shape,)}"
            )
        rows, silence = self.bucket(count), self.num_slots * self.buffer_frames
        sources = torch.where(heads < 0, silence, slots * self.buffer_frames + heads)
        with self.in_stream():
            if self.captures and rows not in self.graphs:
                self.graphs[rows] = self.capture(rows)
            began = self.mark()
            places = self.send(torch.stack([slots, sources]))
            self.slots[:count], self.sources[:count] = places[0], places[1]
            self.slots[count:rows], self.sources[count:rows] = -1, silence
            if self.captures:
                self.graphs[rows].replay()
            else:
                self.advance(rows)
            if began is None:
                whole = self.log_probs[:count].clone() if log_probs else None
                return SlotLabels(self.packed[:count].clone(), whole, None)
            packed = copy_out(self.packed[:count])
            whole = copy_out(self.log_probs[:count]) if log_probs else None
            done = self.mark()
            assert done is not None
            return SlotLabels(packed, whole, (began, done))

    @torch.no_grad()
    def warm_up(self, counts: Sequence[int] | None = None) -> None:
        """Compile and capture the buckets of some counts, by default all; no stream advances."""
        for count in self.buckets() if counts is None else counts:
            rows = self.bucket(count)
            with self.in_stream():
                if self.captures and rows not in self.graphs:
                    self.graphs[rows] = self.capture(rows)
        self.synchronise()

    @torch.no_grad()
    def write(
        self, slots: Sequence[int], state: RecogniserState, previous: int, frame: int
    ) -> None:
        """Let slots begin from a state of batch 1, label and frame: see ``SlotState``."""
        with self.in_stream():
            at = torch.tensor(slots, device=self.device)

            def put(part: Tensor, new: Tensor) -> Tensor:
                part[at] = new.to(part.device, part.dtype)
                return part

            map_state(put, self.state, state)
            self.previous[at] = previous
            self.frame[at] = frame
        self.synchronise()

    @torch.no_grad()
    def begin(self, slots: Sequence[int], lookahead: int | None = None) -> None:
        """Let new streams begin in slots; ``lookahead`` in backbone frames, by default the most."""
        right = max(self.config.lookahead_frames) if lookahead is None else lookahead
        state = self.network.init_state(1, right)
        self.write(slots, state, BLANK_ID, -right * self.config.stack)

    @torch.no_grad()
    def read(self, slot: int) -> SlotState:
        """Return a copy of a slot's state, on the CPU, float32."""
        rows: list[Tensor] = []

        def take(part: Tensor) -> Tensor:
            rows.append(part[slot].flatten().float())  # whole numbers in it are small
            return part

        with self.in_stream():
            map_state(take, self.state)
            counts = torch.stack([self.previous[slot], self.frame[slot]]).cpu().tolist()
            flat = torch.cat(rows).cpu()  # one copy, not one for each part
        values = iter(torch.split(flat, [len(row) for row in rows]))

        def give(part: Tensor) -> Tensor:
            dtype = torch.float32 if part.is_floating_point() else part.dtype
            value: Tensor = next(values)
            return value.to(dtype).reshape(1, *part.shape[1:]).clone()

        return SlotState(map_state(give, self.state), *counts)

    @torch.no_grad()
    def read_audio(self, slot: int) -> Tensor:
        """Return a slot's ring of audio, (samples,) float32 on the CPU."""
        with self.in_stream():
            return self.audio[slot].cpu()

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.stream is not None:
            self.stream.synchronize()

    @contextlib.contextmanager
    def in_stream(self) -> Iterator[None]:
        """Give work to the slots' own CUDA stream."""
        if self.stream is None:
            yield
            return
        # what the caller made on its own stream comes first
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            yield

    def send(self, x: Tensor) -> Tensor:
        """Return a copy on the device, through pinned memory: nobody waits for it."""
        if self.stream is None:
            return x
        staging = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        return staging.copy_(x).to(self.device, non_blocking=True)

    def mark(self) -> "torch.cuda.Event | None":
        """Record where the slots' stream stands, if there is one."""
        if self.stream is None:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
        event.record(self.stream)
        return event

    def capture(self, rows: int) -> torch.cuda.CUDAGraph:
        """Capture a step of ``rows`` rows; no stream advances."""
        self.slots[:rows] = -1
        for _ in range(2):
            self.advance(rows)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            self.advance(rows)
        return graph

    def advance(self, rows: int) -> None:
        """Run the network over the first ``rows`` rows of ``sources`` and ``slots``."""
        slots = self.slots[:rows]
        # where a plain torch operation writes, the rows that fill up have a slot, too
        places = torch.where(slots < 0, self.num_slots, slots)
        network, state = self.network, self.state
        frames = self.audio.view(-1, self.config.frame_size)
        features = self.find_features(frames.index_select(0, self.sources[:rows]), places)
        with products(self.tf32 and self.device.type == "cuda"):
            encoded = encode(network.encoder, features, state.encoder, slots)
            x = network.in_proj(encoded.reshape(rows, -1)).float()
            x, added, phones = self.run_layers(x, slots)
            h = add_norm_(x, added, network.norm_f.weight, network.norm_f.eps)
            logits = network.head(h).float().view(rows, self.config.stack, -1)
        log_probs = logits.log_softmax(dim=-1)
        heard = log_probs if phones is None else torch.cat([log_probs, phones], dim=-1)
        self.log_probs[:rows] = heard
        self.collapse(log_probs, places)

    def find_features(self, samples: Tensor, places: Tensor) -> Tensor:
        """Return what the encoder sees of (rows, samples): (rows, frames, features)."""
        encoder, tails = self.network.encoder, self.state.encoder.stft.tail
        stft = encoder.stft
        with products(tf32=False):
            joined = torch.cat([tails.index_select(0, places), samples], dim=1)
            kept = tails.shape[1]
            tails.index_copy_(0, places, joined[:, joined.shape[1] - kept :].contiguous())
            return encoder.features(stft.transform(joined))

    def run_layers(self, x: Tensor, slots: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the backbone's layers over (rows, d_model) float32, which they overwrite.

        Returns:
            (rows, d_model), what is still to be added to it, and (rows, label frames, phones)
            log-probabilities if the network has a head for them.
        """
        config, state, network = self.config, self.state, self.network
        layers, added, phones = [*state.lower, *state.upper], None, None
        for i, block in enumerate(self.blocks):
            if self.convs:
                conv = self.convs[i]
                h = add_norm_(x, added, conv.norm.weight, conv.norm.eps)
                added = convolve(conv, h, state.convs[i].tail, slots)
            h = add_norm_(x, added, block.norm.weight, block.norm.eps)
            mixed = mix(block.mixer, h, layers[i], slots=slots)
            h = add_norm_(x, mixed, block.norm2.weight, block.norm2.eps)
            added = block.mlp.fc2(gate_values(block.mlp.fc1(h)))
            looks = i + 1 == config.lookahead_after
            tells = i + 1 == config.middle_after and network.phones is not None
            if looks or tells:
                x, added = x + added, None
            if looks:
                x = look_ahead(x, self.taps, state.lookahead, slots)
            if tells and network.phones is not None:
                phones, x = network.phones(x.unsqueeze(1))
                x = x.squeeze(1)
        return x, added, phones

    def collapse(self, log_probs: Tensor, places: Tensor) -> None:
        """Reduce (rows, label frames, pieces) to what greedy decoding needs, into ``packed``."""
        scores, labels = log_probs.max(dim=-1)
        sane = log_probs.isfinite().flatten(1).all(dim=1, keepdim=True)
        previous, frame = self.previous[places], self.frame[places]
        fresh = []
        for label in labels.unbind(dim=1):
            fresh.append((label != BLANK_ID) & (label != previous))
            # labels before the first frame are the look-ahead's
            previous = torch.where(frame >= 0, label, previous)
            frame = frame + 1
        self.previous.index_copy_(0, places, previous)
        self.frame.index_copy_(0, places, frame)
        codes = labels + FRESH * torch.stack(fresh, dim=1)
        rows = len(places)
        self.packed[:rows, :, 0] = torch.where(sane, codes, -1).int()
        self.packed[:rows, :, 1] = scores.contiguous().view(torch.int32)


def cast_copy(module: M, dtype: torch.dtype) -> M:
    """Return a copy of a module in another dtype."""
    return copy.deepcopy(module).to(dtype)


def make_rows(state: RecogniserState, count: int, state_dtype: torch.dtype) -> RecogniserState:
    """Return zeros of ``count`` rows like a state of batch 1; recurrent ones in ``state_dtype``."""

    def zeros(part: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.zeros(count, *part.shape[1:], dtype=dtype, device=part.device)

    def ssm(part: SsmState) -> SsmState:
        # angles are sums over all frames: they stay as they are
        return SsmState(
            zeros(part.angle, part.angle.dtype), *(zeros(p, state_dtype) for p in part[1:])
        )

    plain = map_state(
        lambda part: zeros(part, part.dtype), (state.encoder.stft, state.encoder.blocks)
    )
    encoder = EncoderState(*plain, ssm(state.encoder.ssm))
    lookahead = map_state(lambda part: zeros(part, part.dtype), state.lookahead)
    convs = map_state(lambda part: zeros(part, part.dtype), state.convs)
    lower, upper = (tuple(ssm(part) for part in parts) for parts in (state.lower, state.upper))
    return RecogniserState(encoder, lower, lookahead, upper, convs)


def copy_out(x: Tensor) -> Tensor:
    """Return a copy in pinned memory that will be there when the stream comes by."""
    y = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    return y.copy_(x, non_blocking=True)


@contextlib.contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Set how float32 products round on a card; a captured graph keeps what was set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def encode(encoder: Encoder, features: Tensor, state: EncoderState, slots: Tensor) -> Tensor:
    """Advance the encoder by (rows, frames, features): (rows, frames, d_model)."""
    x = encoder.in_proj(features)
    for block, conv in zip(list_blocks(encoder.blocks), state.blocks, strict=True):
        y = conv_step_(x, conv.tail, block.conv.weight.squeeze(1), block.conv.bias, slots)
        y = F.gelu(block.up(block.norm(y)))
        x = torch.addcmul(x, block.down(y), block.scale)
    projected = encoder.mixer.in_proj(encoder.norm(x))
    mixed = [
        step_projected(encoder.mixer, frame, state.ssm, slots=slots)
        for frame in projected.unbind(dim=1)
    ]
    encoded: Tensor = x + encoder.mixer.out_proj(torch.stack(mixed, dim=1))
    return encoded


def convolve(conv: GatedConv, h: Tensor, tail: Tensor, slots: Tensor) -> Tensor:
    """Advance a convolution by normed (rows, d_model); what it returns is to be added."""
    y = conv_step_(
        conv.gated(h).unsqueeze(1),
        tail,
        conv.conv.weight.squeeze(1),
        conv.conv.bias,
        slots,
        gated=True,
        norm=conv.conv_norm.weight,
        eps=conv.conv_norm.eps,
    )
    added: Tensor = conv.out(y.squeeze(1))
    return added


def look_ahead(x: Tensor, taps: Tensor, state: LookAheadState, slots: Tensor) -> Tensor:
    """Advance the look-ahead by (rows, d_model)."""
    return conv_step_(x.unsqueeze(1), state.tail, taps, None, slots, options=state.option).squeeze(
        1
    )
