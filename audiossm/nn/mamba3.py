"""The Mamba-3 mixer: a linear recurrence with rotating states (arXiv:2603.15569v1)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiossm.errors import ConfigError, ShapeError
from audiossm.nn.norm import RMSNorm
from audiossm.nn.streaming import StreamingModule
from audiossm_kernels import (
    Pairing,
    RawParams,
    SsmInputs,
    SsmParams,
    SsmState,
    make_steps,
    norm_vectors,
    ssm_scan,
    ssm_step,
    turn_back,
)
from audiossm_kernels.operators import exporting
from audiossm_kernels.rotary import add_bias, reduce_angle, rotate
from audiossm_kernels.ssm_step.exported import step_exported, takes

__all__ = ["Mamba3", "Mamba3Config"]

# what lambda = sigmoid(trap) rounds to 1 at, in float32 and bfloat16
CERTAIN = 30.0
# periods in frames that a resonator bank begins with
SHORTEST, LONGEST = 2.0, 200.0
# up to which a graph, and a CPU, go frame by frame: it is less than the matrix form
FEW_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Mamba3Config:
    """Sizes and choices of one mixer.

    Attributes:
        d_model: channels in and out.
        d_state: N, state dimensions of a head.
        expand: inner channels per channel of ``d_model``.
        head_dim: P, inner channels of a head.
        num_groups: G, sets of B and C that the heads share.
        mimo_rank: R, inputs and outputs of a head's state; counts only if ``is_mimo``.
        is_mimo: several inputs and outputs per head instead of one.
        rope_fraction: part of the state that rotates, 0.5 or 1.
        a_activation: what makes the decay positive: "heavy_tail" (1 + s, 1 / (1 - s) below
            zero) or "softplus".
        a_floor: smallest decay rate.
        dt_min: smallest step that ``dt_bias`` starts from.
        dt_max: largest one.
        dt_init_floor: floor under both.
        out_norm: RMS norm of each head before the gate.
        trapezoid: weigh a frame's input against the one before, as published; without it lambda
            is 1, Euler's rule, and the rows of ``in_proj`` for it do nothing.
        turns: let frames turn the state, as published; without it their angles are 0, and the rows
            of ``in_proj`` for them do nothing.
        resonators: share of the heads, rounded up, whose state also turns by a frequency of its
            own, whatever dt is: a resonator bank, with learned frequencies that begin
            log-spaced at periods of 2 to 200 frames. None is the layer as published.
        max_memory: frames after which a state has faded to 1/e at the latest, whatever A and dt
            say; None is the layer as published. A head that hardly forgets fills up over minutes
            when training has only shown it seconds.
        chunk_size: frames of a chunk in the matrix form; a good one for the rank by default.
    """

    d_model: int
    d_state: int = 128
    expand: float = 2.0
    head_dim: int = 64
    num_groups: int = 1
    mimo_rank: int = 1
    is_mimo: bool = False
    rope_fraction: float = 0.5
    a_activation: str = "heavy_tail"
    a_floor: float = 1e-4
    dt_min: float = 1e-3
    dt_max: float = 0.1
    dt_init_floor: float = 1e-4
    out_norm: bool = False
    trapezoid: bool = True
    turns: bool = True
    resonators: float = 0.0
    max_memory: float | None = None
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that don't fit together, with the value and the limit."""
        for name in ("d_model", "d_state", "head_dim", "num_groups", "mimo_rank"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"Mamba3Config: {name} must be 1 or more, not {getattr(self, name)}"
                )
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ConfigError(f"Mamba3Config: chunk_size must be 1 or more, not {self.chunk_size}")
        if self.max_memory is not None and self.max_memory < 1:
            raise ConfigError(
                f"Mamba3Config: max_memory must be 1 frame or more, not {self.max_memory}"
            )
        inner = self.expand * self.d_model
        if inner != int(inner) or inner < 1 or inner % self.head_dim:
            raise ConfigError(
                f"Mamba3Config: expand * d_model = {inner:g} must be a multiple of "
                f"head_dim {self.head_dim}"
            )
        if self.num_heads % self.num_groups:
            raise ConfigError(
                f"Mamba3Config: {self.num_heads} heads can't be shared by {self.num_groups} groups"
            )
        if self.rope_fraction not in (0.5, 1.0):
            raise ConfigError(
                f"Mamba3Config: rope_fraction must be 0.5 or 1, not {self.rope_fraction}"
            )
        if self.num_angles < 1 or (self.is_mimo and self.d_state % 2):
            raise ConfigError(
                f"Mamba3Config: d_state {self.d_state} has no pairs to rotate; take an even one, "
                "4 or more"
            )
        if self.a_activation not in ("heavy_tail", "softplus"):
            raise ConfigError(
                "Mamba3Config: a_activation must be 'heavy_tail' or 'softplus', "
                f"not {self.a_activation!r}"
            )
        if not 0 <= self.resonators <= 1:
            raise ConfigError(
                f"Mamba3Config: resonators must be a share from 0 to 1, not {self.resonators}"
            )
        if not (0 < self.dt_min <= self.dt_max and self.dt_init_floor > 0 and self.a_floor > 0):
            raise ConfigError(
                "Mamba3Config: 0 < dt_min <= dt_max, dt_init_floor > 0 and a_floor > 0 must hold, "
                f"not {self.dt_min}, {self.dt_max}, {self.dt_init_floor} and {self.a_floor}"
            )

    @property
    def d_inner(self) -> int:
        """Channels of x, z and y inside the mixer."""
        return int(self.expand * self.d_model)

    @property
    def num_heads(self) -> int:
        """H, heads of ``head_dim`` channels."""
        return self.d_inner // self.head_dim

    @property
    def num_resonant(self) -> int:
        """Heads with a resonator bank, the first ones."""
        return math.ceil(self.resonators * self.num_heads)

    @property
    def rank(self) -> int:
        """R as the mixer uses it: 1 unless ``is_mimo``."""
        return self.mimo_rank if self.is_mimo else 1

    @property
    def pairing(self) -> Pairing:
        """Which state dimensions rotate together."""
        return "halved" if self.is_mimo else "adjacent"

    @property
    def num_angles(self) -> int:
        """S, pairs of state dimensions that rotate; an odd split gives up one dimension."""
        return int(self.d_state * self.rope_fraction) // 2

    @property
    def split_sizes(self) -> list[int]:
        """Rows of ``in_proj``: z, x, B, C, dt, A, trap, angle."""
        width = self.rank * self.num_groups * self.d_state
        return [self.d_inner] * 2 + [width] * 2 + [self.num_heads] * 3 + [self.num_angles]


class Mamba3(StreamingModule[SsmState]):
    """Mix the frames of (batch, frames, d_model) causally, in constant memory.

    Parameter names are those of the authors' checkpoints. Everything but the two projections is
    computed in float32. Scaling ``out_proj`` by the number of layers is up to the model.
    """

    mimo_x: nn.Parameter | None
    mimo_z: nn.Parameter | None
    mimo_o: nn.Parameter | None
    log_frequency: nn.Parameter | None

    def __init__(self, config: Mamba3Config) -> None:
        super().__init__()
        self.config = config
        heads, rank, d_state = config.num_heads, config.rank, config.d_state
        self.in_proj = nn.Linear(config.d_model, sum(config.split_sizes), bias=False)
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.B_bias = nn.Parameter(torch.ones(heads, rank, d_state))
        self.C_bias = nn.Parameter(torch.ones(heads, rank, d_state))
        self.B_norm = RMSNorm(d_state)
        self.C_norm = RMSNorm(d_state)
        self.D = nn.Parameter(torch.ones(heads))
        for name, value in (("mimo_x", 1 / rank), ("mimo_z", 1.0), ("mimo_o", 1 / rank)):
            weight = torch.full((heads, rank, config.head_dim), value)
            self.register_parameter(name, nn.Parameter(weight) if config.is_mimo else None)
        self.norm = RMSNorm(config.d_inner) if config.out_norm else None
        bank = torch.empty(config.num_resonant * config.num_angles)
        # of radians a frame; one vector, as optimisers let only matrices decay
        self.log_frequency = nn.Parameter(bank) if config.num_resonant else None
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)
        self.reset_steps()
        self.reset_bank()

    def reset_steps(self) -> None:
        """Draw ``dt_bias`` so that the steps start log-uniform in [dt_min, dt_max]."""
        config = self.config
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        with torch.no_grad():
            dt = torch.empty_like(self.dt_bias).uniform_(low, high).exp()
            dt = dt.clamp(min=config.dt_init_floor)
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def reset_bank(self) -> None:
        """Space the frequencies of the bank evenly by their logarithm, over all of its heads."""
        if self.log_frequency is not None:
            low, high = math.log(2 * math.pi / LONGEST), math.log(2 * math.pi / SHORTEST)
            spaced = torch.linspace(low, high, len(self.log_frequency))
            with torch.no_grad():  # neighbours in different heads: each has low and high ones
                spread = spaced.view(-1, self.config.num_resonant).T
                self.log_frequency.copy_(spread.flatten())

    def init_state(self, batch: int) -> SsmState:
        """Return the zero state of ``batch`` streams."""
        config = self.config
        heads, dtype = config.num_heads, torch.promote_types(self.dt_bias.dtype, torch.float32)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, dtype=dtype, device=self.dt_bias.device)

        return SsmState(
            angle=zeros(heads, config.num_angles),
            ssm=zeros(heads, config.head_dim, config.d_state),
            k=zeros(config.rank, heads, config.d_state),
            v=zeros(heads, config.head_dim),
        )

    def step(self, x: Tensor, state: SsmState) -> tuple[Tensor, SsmState]:
        """Advance by ``frames`` frames: one through the recurrence, many through the matrix form.

        Args:
            x: (batch, frames, d_model), float32 or bfloat16, frames >= 1.
            state: what the previous call returned, or ``init_state(batch)``.
        Returns:
            y: (batch, frames, d_model), dtype of the projections; and the state after the last
            frame, float32.
        Raises:
            ShapeError: no frames, another ``d_model``, or another batch than the state's.
        """
        config = self.config
        check_frames("Mamba3", x, config.d_model, state)
        one = x.shape[1] == 1
        params = self.small_parameters()
        few = x.shape[1] <= FEW_FRAMES
        fused = few and config.trapezoid and config.turns and exporting()
        if fused and takes(len(x), params, config.num_groups):
            outputs = []
            projected = self.in_proj(x)
            for frame in [projected] if one else projected.split(1, dim=1):
                y, state = step_exported(
                    frame, config.split_sizes, self.raw_parameters(), params, self.resonate(state)
                )
                outputs.append(y)
            return self.out_proj(outputs[0] if one else torch.cat(outputs, dim=1)), state
        # one frame needs no frame axis until the end
        parts = self.in_proj(x[:, 0] if one else x).split(config.split_sizes, dim=-1)
        lead = parts[0].shape[:-1]
        z, v = (part.view(*lead, config.num_heads, config.head_dim) for part in parts[:2])
        ranks = (config.rank, config.num_groups, config.d_state)
        k, q = (part.view(*lead, *ranks) for part in parts[2:4])
        # float32 before softplus and f: half precision would lose small steps and decays
        dtype = torch.promote_types(v.dtype, torch.float32)
        rest = parts[4:] if x.is_cuda else [part.to(dtype) for part in parts[4:]]
        raw_dt, raw_a, trap, angles = rest
        trap, angles = self.weigh(trap), self.turn(angles)
        dt, adt = make_steps(
            raw_dt, raw_a, self.dt_bias, config.a_activation, config.a_floor, config.max_memory
        )
        if x.is_cuda:  # a launch each, gradients included
            q = norm_vectors(q, self.C_norm.weight, self.C_norm.eps)
            k = norm_vectors(k, self.B_norm.weight, self.B_norm.eps)
        else:
            q, k = self.C_norm(q), self.B_norm(k)
        inputs = SsmInputs(q, k, v, z, dt, adt, trap, angles.unsqueeze(-2))
        pairing = config.pairing
        if one:
            y, state = ssm_step(*inputs, params, self.resonate(state), pairing=pairing)
            return self.out_proj(y.flatten(-2)).unsqueeze(1), state
        if few and not x.is_cuda:  # there the matrix form costs more
            steps = []
            for i in range(x.shape[1]):
                frame = SsmInputs._make(part[:, i] for part in inputs)
                y, state = ssm_step(*frame, params, self.resonate(state), pairing=pairing)
                steps.append(y)
            return self.out_proj(torch.stack(steps, dim=1).flatten(-2)), state
        if self.log_frequency is not None:
            inputs, params = self.turn_inputs(inputs, params)
        y, state = ssm_scan(*inputs, params, state, pairing=pairing, chunk_size=config.chunk_size)
        if self.log_frequency is not None:
            state = state._replace(angle=self.advance(state.angle, x.shape[1]))
        return self.out_proj(y.flatten(-2)), state

    def weigh(self, trap: Tensor) -> Tensor:
        """Return what lambda is the sigmoid of: ``trap``, or by Euler's rule what gives 1."""
        return trap if self.config.trapezoid else torch.full_like(trap, CERTAIN)

    @property
    def frequency(self) -> Tensor | None:
        """Radians a frame of the resonator bank, (resonant heads, angles), if there is one."""
        if self.log_frequency is None:
            return None
        return self.log_frequency.exp().view(self.config.num_resonant, -1)

    def turn(self, angles: Tensor) -> Tensor:
        """Return what the rates of turning are made of: ``angles``, or without any, zeros."""
        return angles if self.config.turns else torch.zeros_like(angles)

    def resonate(self, state: SsmState) -> SsmState:
        """Return the state that the recurrence takes for the next frame: turned by the bank.

        Turns add up, so it makes no difference whether the bank's comes before the frame's own.
        """
        if self.log_frequency is None:
            return state
        return state._replace(angle=self.advance(state.angle, 1))

    def advance(self, angle: Tensor, frames: int) -> Tensor:
        """Turn angles (batch, heads, angles) on by so many frames of the bank."""
        frequency = self.frequency
        assert frequency is not None
        turn = frequency.to(angle.dtype) * frames
        quiet = self.config.num_heads - len(turn)
        return reduce_angle(angle + F.pad(turn, (0, 0, 0, quiet)), angle.dtype)

    def turn_inputs(self, inputs: SsmInputs, params: SsmParams) -> tuple[SsmInputs, SsmParams]:
        """Turn B and C by the bank before the recurrence turns them by the frames' own angles.

        So every implementation of the recurrence takes them: each head is a group of its own, and
        the biases, which come before any turn, are in them.
        """
        frequency = self.frequency
        assert frequency is not None
        # float64: over minutes of frames float32 would lose the phase
        count = torch.arange(1, inputs.q.shape[1] + 1, device=inputs.q.device).double()
        phase = reduce_angle(
            count.view(-1, 1, 1, 1) * frequency.double().unsqueeze(1), params.q_bias.dtype
        )
        cos, sin, resonant = phase.cos(), phase.sin(), len(frequency)

        def turned(x: Tensor, bias: Tensor) -> Tensor:
            heads = add_bias(x.to(torch.promote_types(x.dtype, bias.dtype)), bias)
            first = rotate(heads[..., :resonant, :, :], cos, sin, self.config.pairing)
            return torch.cat([first, heads[..., resonant:, :, :]], dim=-3).transpose(-3, -2)

        q = turned(inputs.q, params.q_bias).to(inputs.q.dtype)
        k = turned(inputs.k, params.k_bias).to(inputs.k.dtype)
        none = torch.zeros_like(params.q_bias)
        return inputs._replace(q=q, k=k), params._replace(q_bias=none, k_bias=none)

    def turn_back(self, state: SsmState) -> SsmState:
        """Return the state with the same future whose angles are zero."""
        return turn_back(state, self.config.pairing)

    def small_parameters(self) -> SsmParams:
        """Return what the kernels take beside the frames' own tensors."""
        shape = (self.config.num_heads, self.config.head_dim)
        return SsmParams(
            q_bias=self.C_bias,
            k_bias=self.B_bias,
            d_skip=self.D,
            mimo_x=self.mimo_x,
            mimo_z=self.mimo_z,
            mimo_o=self.mimo_o,
            out_norm=None if self.norm is None else self.norm.weight.view(shape),
        )

    def raw_parameters(self) -> RawParams:
        """Return what stands between the projection and the recurrence, in the weights' dtype."""
        config = self.config
        return RawParams(
            self.dt_bias,
            q_norm=self.C_norm.weight,
            k_norm=self.B_norm.weight,
            a_activation=config.a_activation,
            a_floor=config.a_floor,
            max_memory=config.max_memory,
        )


def check_frames(layer: str, x: Tensor, d_model: int, state: SsmState) -> None:
    """Refuse an input that isn't (batch, frames >= 1, d_model) with the state's batch.

    Raises:
        ShapeError: what came and what was expected.
    """
    if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != d_model:
        raise ShapeError(
            f"{layer}: input must be (batch, frames >= 1, {d_model}), not {tuple(x.shape)}"
        )
    if x.shape[0] != state.ssm.shape[0]:
        raise ShapeError(
            f"{layer}: the input has batch {x.shape[0]}, but the state {state.ssm.shape[0]}: "
            "make one with init_state(batch)"
        )
