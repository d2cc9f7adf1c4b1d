"""Many streams' states side by side, advanced in place: a stack of blocks, one frame at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from audiossm.errors import ConfigError, ShapeError
from audiossm.nn.block import Block
from audiossm.nn.mamba3 import Mamba3
from audiossm.nn.norm import RMSNorm
from audiossm_kernels import RawParams, SsmInputs, SsmState, make_steps, norm_vectors, ssm_step_
from audiossm_kernels.fused import add_norm_, gate_values

__all__ = ["BlockSlots", "mix", "step_projected"]

# from which on a card prepares a row once for all heads: of 2000 rows with 64 heads the kernel took
# 1.4 ms when each head did it, and 1.2 when they came prepared (H200)
MANY_ROWS, MANY_HEADS = 256, 16


class BlockSlots:
    """A stack of blocks with the states of ``num_slots`` streams, which each step overwrites.

    On a CUDA device a step is one CUDA graph, captured the first time that a bucket is used: a
    bucket is a power of two of the first slots, or all of them. A slot's numbers depend on the
    bucket, never on the other slots. Without gradients.

    Args:
        blocks: the layers, in order; they share ``d_model``, and have one device and dtype.
        norm: what follows the last layer.
        num_slots: streams at most.
        state_dtype: of the recurrent states: float32, or bfloat16 for half the memory.
        impl: of the recurrence, as in ``ssm_step``.

    Raises:
        ConfigError: no slot, no layer, or layers that are not in evaluation mode.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        norm: RMSNorm,
        *,
        num_slots: int,
        state_dtype: torch.dtype = torch.float32,
        impl: str = "auto",
    ) -> None:
        if num_slots < 1 or not blocks:
            raise ConfigError(f"{num_slots} slots of {len(blocks)} layers: must be 1 or more each")
        if any(block.training for block in blocks):
            raise ConfigError("blocks in slots must be in evaluation mode: call eval() first")
        self.blocks, self.norm, self.impl = list(blocks), norm, impl
        self.num_slots, self.d_model = num_slots, blocks[0].norm.weight.shape[0]
        weight = norm.weight
        self.state = [block.init_state(num_slots) for block in blocks]
        if state_dtype != torch.float32:
            # angles are sums over all frames: they stay float32
            self.state = [
                SsmState(s.angle, *(part.to(state_dtype) for part in s[1:])) for s in self.state
            ]
        self.x = torch.zeros(num_slots, self.d_model, device=weight.device)
        self.live = torch.zeros(num_slots, dtype=torch.bool, device=weight.device)
        self.y = torch.zeros(num_slots, self.d_model, dtype=weight.dtype, device=weight.device)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def bucket(self, count: int) -> int:
        """Return how many of the first slots a step of ``count`` of them computes."""
        return min(self.num_slots, 1 << (count - 1).bit_length())

    @torch.no_grad()
    def step(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        """Advance the first slots by one frame.

        Args:
            x: (slots, d_model), a frame for each of the first slots.
            live: (slots,) bool; a slot that isn't keeps its state, and its output means nothing.
                All by default.

        Returns:
            (slots, d_model), the dtype of the weights; the next step overwrites it.

        Raises:
            ShapeError: another shape, or more frames than slots.
        """
        count = len(x)
        if x.dim() != 2 or x.shape[1] != self.d_model or not 1 <= count <= self.num_slots:
            raise ShapeError(
                f"a step takes (1 to {self.num_slots}, {self.d_model}), got {(*x.shape,)}"
            )
        if live is not None and (live.shape != (count,) or live.dtype != torch.bool):
            raise ShapeError(f"live must be ({count},) bool, got {(*live.shape,)} {live.dtype}")
        rows = self.bucket(count)
        self.x[:count].copy_(x)
        self.live[:count] = True if live is None else live
        self.live[count:rows] = False
        if self.x.device.type != "cuda":
            self.advance(rows)
            return self.y[:count]
        if rows not in self.graphs:
            self.graphs[rows] = self.capture(rows)
        self.graphs[rows].replay()
        return self.y[:count]

    def capture(self, rows: int) -> torch.cuda.CUDAGraph:
        """Capture a step of the first ``rows`` slots; states and input stay as they are."""
        x, live = self.x[:rows].clone(), self.live[:rows].clone()
        self.live[:rows] = False  # warming up and capturing must not advance anybody
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no hint for it
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.advance(rows)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.advance(rows)
        self.x[:rows], self.live[:rows] = x, live
        return graph

    def advance(self, rows: int) -> None:
        """Run the layers over the first ``rows`` slots: ``x`` and ``live`` in, ``y`` out."""
        residual, live, added = self.x[:rows], self.live[:rows], None
        for block, state in zip(self.blocks, self.state, strict=True):
            h = add_norm_(residual, added, block.norm.weight, block.norm.eps)
            slots = SsmState._make(part[:rows] for part in state)
            mixed = mix(block.mixer, h, slots, live=live, impl=self.impl)
            h = add_norm_(residual, mixed, block.norm2.weight, block.norm2.eps)
            added = block.mlp.fc2(gate_values(block.mlp.fc1(h)))
        self.y[:rows] = add_norm_(residual, added, self.norm.weight, self.norm.eps)

    def reset(self, slot: int) -> None:
        """Begin a new stream in a slot."""
        for state in self.state:
            for part in state:
                part[slot].zero_()


def mix(
    mixer: Mamba3,
    x: Tensor,
    state: SsmState,
    *,
    live: Tensor | None = None,
    slots: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Advance live rows of a mixer's state in place by (rows, d_model): ``Mamba3.step``'s result.

    The kernel takes slices of the projection as they are. ``live`` and ``slots`` as in
    ``ssm_step_``.
    """
    mixed: Tensor = mixer.out_proj(
        step_projected(mixer, mixer.in_proj(x), state, live=live, slots=slots, impl=impl)
    )
    return mixed


def step_projected(
    mixer: Mamba3,
    projected: Tensor,
    state: SsmState,
    *,
    live: Tensor | None = None,
    slots: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Do what stands between a mixer's two projections, for ``mix``: (rows, d_inner)."""
    config = mixer.config
    parts = torch.split(projected, config.split_sizes, dim=-1)
    z, v = (torch.unflatten(part, -1, (config.num_heads, config.head_dim)) for part in parts[:2])
    ranks = (config.rank, config.num_groups, config.d_state)
    k, q = (torch.unflatten(part, -1, ranks) for part in parts[2:4])
    dt, adt, trap, angles = parts[4:]
    trap, angles = mixer.weigh(trap), mixer.turn(angles)
    raw: RawParams | None = mixer.raw_parameters()
    params = mixer.small_parameters()
    if prepares(projected, config.num_heads):
        q, k = (
            norm_vectors(part, norm.weight, norm.eps)
            for part, norm in ((q, mixer.C_norm), (k, mixer.B_norm))
        )
        dt, adt = make_steps(
            dt, adt, mixer.dt_bias, config.a_activation, config.a_floor, config.max_memory
        )
        raw = None
    if mixer.log_frequency is not None:
        resonate_(mixer, state, live, slots)
    inputs = SsmInputs(q, k, v, z, dt, adt, trap, angles.unsqueeze(-2))
    y = ssm_step_(
        *inputs,
        params,
        state,
        pairing=config.pairing,
        raw=raw,
        live=live,
        slots=slots,
        impl=impl,
    )
    return y.flatten(-2)


def resonate_(mixer: Mamba3, state: SsmState, live: Tensor | None, slots: Tensor | None) -> None:
    """Turn the states of the rows that a step advances by the mixer's resonator bank, in place."""
    angle = state.angle
    if slots is None:
        rows = torch.ones(len(angle), dtype=torch.bool, device=angle.device)
        rows = rows if live is None else live
    else:
        runs = slots >= 0 if live is None else live & (slots >= 0)
        # no index of a changing length: a graph may be captured of this
        rows = torch.zeros(len(angle) + 1, dtype=torch.bool, device=angle.device)
        rows = rows.index_fill(0, torch.where(runs, slots, len(angle)), True)[:-1]
    angle.copy_(torch.where(rows[:, None, None], mixer.advance(angle, 1), angle))


def prepares(projected: Tensor, num_heads: int) -> bool:
    """Return whether a row is better prepared once, in three launches, than by each head anew."""
    return projected.is_cuda and len(projected) >= MANY_ROWS and num_heads >= MANY_HEADS
