"""One step: what is checked and what is timed."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
from measure import TOLERANCE, WrongKernel, error, median_ms, wide
from torch import Tensor

from audiossm_kernels.ssm_scan.cases import ScanShape
from audiossm_kernels.ssm_scan.cases import make_inputs as make_scan_inputs
from audiossm_kernels.ssm_step import ssm_step, ssm_step_
from audiossm_kernels.ssm_step.cases import make_inputs
from audiossm_kernels.ssm_step.triton_step import StepConfig, choose_config, launch_step
from audiossm_kernels.state import SsmInputs, SsmState

# one layer of the 1.5B model
LAYER = ScanShape(frames=1, batch=128, heads=64, head_dim=64, d_state=128)
SMALL = ScanShape(frames=1, batch=3, heads=16, head_dim=64, d_state=128)
CHECKS = [
    SMALL,
    dataclasses.replace(SMALL, rank=4),
    dataclasses.replace(SMALL, rank=2, groups=2, head_dim=48, d_state=64, rope_fraction=1.0),
    dataclasses.replace(SMALL, rank=8, head_dim=128, d_state=256, groups=2),
    dataclasses.replace(SMALL, rank=4, head_dim=20, d_state=24, angle_heads=16, out_norm=True),
    dataclasses.replace(SMALL, head_dim=16, d_state=16, rope_fraction=1.0),
]
GRID = [
    StepConfig(64, 4, 96),
    StepConfig(64, 4, stream=True),
    StepConfig(64, 4, 96, stream=True),
    StepConfig(64, 4, 112),
    StepConfig(64, 4, 128),
    StepConfig(64, 4, 112, stream=True),
    StepConfig(64, 4, 168),
    StepConfig(64, 4),
]


@dataclasses.dataclass(frozen=True)
class Work:
    """A row of the table."""

    name: str
    shape: ScanShape
    state_dtype: torch.dtype
    authors: str  # milliseconds and card


WORKS = [
    Work("SISO, batch 128, bfloat16 state", LAYER, torch.bfloat16, "0.156 (H100)"),
    Work(
        "MIMO R=4, batch 128, bfloat16 state",
        dataclasses.replace(LAYER, rank=4),
        torch.bfloat16,
        "0.179 (H100)",
    ),
    Work(
        "MIMO R=4, batch 128, float32 state",
        dataclasses.replace(LAYER, rank=4),
        torch.float32,
        "0.431 (H100)",
    ),
]


def check_step(
    shape: ScanShape,
    dtype: torch.dtype,
    state_dtype: torch.dtype,
    config: StepConfig | None = None,
    *,
    pure: bool = False,
) -> float:
    """Hold one case to the reference and return the error of its output.

    Three runs in place with a dead slot have equal bits; with ``pure`` also a run that isn't in
    place, into poisoned tensors.

    Raises:
        WrongKernel: what doesn't hold, and by how much.
    """
    inputs = make_inputs(shape, dtype, "cuda", state_dtype=state_dtype)
    label = f"{shape}, {dtype}, state {state_dtype}, {config}"
    x, params, before = SsmInputs._make(inputs[:8]), inputs.params, inputs.state
    exact = wide(inputs)
    expected_y, expected = ssm_step(*exact, pairing=shape.pairing, impl="reference")
    live = torch.arange(shape.batch, device="cuda") != 1

    def launch(state: SsmState, new: SsmState, live: Tensor | None) -> Tensor:
        y = torch.full_like(inputs.v, torch.nan)
        launch_step(x, params, state, new, y, shape.pairing, live=live, config=config)
        return y

    runs = []
    for _ in range(3):
        slots = SsmState._make(part.clone() for part in before)
        runs.append((launch(slots, slots, live), *slots))
    y, *slots = runs[0]
    for run in runs[1:]:
        if not all(map(torch.equal, runs[0], run)):
            raise WrongKernel(f"{label}: two equal runs have different bits")
    if y[~live].any() or not all(
        torch.equal(slot[~live], old[~live]) for slot, old in zip(slots, before, strict=True)
    ):
        raise WrongKernel(f"{label}: a dead slot changed or has an output")
    if pure:
        new = SsmState._make(torch.full_like(part, torch.nan) for part in before)
        pure_y = launch(before, new, None)
        for name, a, b in zip(("y", *new._fields), (pure_y, *new), (y, *slots), strict=True):
            if not torch.equal(a[live], b[live]) or a.isnan().any():
                raise WrongKernel(f"{label}: {name} isn't what it is in place")

    state = SsmState._make(slots)
    turns = (state.angle.double() - expected.angle)[live] / (2 * torch.pi)
    found = {
        "y": (error(y[live], expected_y[live]), TOLERANCE[y.dtype][0]),
        "angle": (float((turns - turns.round()).abs().max()), 2e-6),
    }
    for name in ("ssm", "k", "v"):
        part = getattr(state, name)
        off = error(part[live], getattr(expected, name)[live])
        found[name] = (off, TOLERANCE[part.dtype][1])
    for name, (value, limit) in found.items():
        if not value <= limit:
            raise WrongKernel(f"{label}: {name} is off by {value:.1e}, not at most {limit:.0e}")
    return found["y"][0]


def check_far_offsets() -> None:
    """Step a state of more than 2^31 elements whose last rows are its first ones.

    Raises:
        WrongKernel: they come out different.
    """
    shape = dataclasses.replace(LAYER, batch=8, rank=4)
    inputs = make_inputs(shape, torch.bfloat16, "cuda", state_dtype=torch.bfloat16)
    times = 2**31 // inputs.state.ssm.numel() + 2

    def repeat(x: Tensor) -> Tensor:
        return x.repeat(times, *[1] * (x.dim() - 1))

    x = [repeat(part) for part in inputs[:8]]
    state = SsmState._make(repeat(part) for part in inputs.state)
    live = torch.ones(8 * times, dtype=torch.bool, device="cuda")
    y = ssm_step_(*x, inputs.params, state, pairing=shape.pairing, live=live, impl="triton")
    for part in (y, *state):
        if not torch.equal(part[:8], part[-8:]):
            raise WrongKernel("offsets past 2^31 elements: the last rows differ from the first")


def drift(frames: int = 2048) -> float:
    """Return the error of a bfloat16 state after ``frames`` steps; 3e-2 is the aim."""
    shape = dataclasses.replace(SMALL, frames=frames, rank=4)
    inputs = make_scan_inputs(shape, torch.bfloat16, "cuda")
    exact = wide(inputs)
    expected, params = exact.state, exact.params
    state = SsmState(inputs.state.angle, *(part.bfloat16() for part in inputs.state[1:]))
    live = torch.ones(shape.batch, dtype=torch.bool, device="cuda")
    for frame in range(frames):
        x = SsmInputs._make(part[:, frame] for part in inputs[:8])
        ssm_step_(*x, inputs.params, state, pairing="halved", live=live, impl="triton")
        x = SsmInputs._make(part[:, frame] for part in exact[:8])
        _, expected = ssm_step(*x, params, expected, pairing="halved", impl="reference")
    return error(state.ssm, expected.ssm)


class Case:
    """The inputs of a work and several states, together larger than the cache."""

    def __init__(self, work: Work) -> None:
        shape = work.shape
        few = make_inputs(
            dataclasses.replace(shape, batch=8),
            torch.bfloat16,
            "cuda",
            state_dtype=work.state_dtype,
        )

        def fill(x: Tensor) -> Tensor:
            return x.repeat(-(-shape.batch // 8), *[1] * (x.dim() - 1))[: shape.batch].contiguous()

        cache = torch.cuda.get_device_properties(0).L2_cache_size
        self.pairing = shape.pairing
        self.params = few.params
        self.x = SsmInputs._make(fill(part) for part in few[:8])
        self.live = torch.ones(shape.batch, dtype=torch.bool, device="cuda")
        first = SsmState._make(fill(part) for part in few.state)
        self.state_bytes = first.ssm.numel() * first.ssm.element_size()
        count = max(4, -(-4 * cache // self.state_bytes))
        copies = (SsmState._make(part.clone() for part in first) for _ in range(count - 1))
        self.states = [first, *copies]
        self.y = torch.empty_like(self.x.v)
        # the state and the last key and value are read and written, the rest is read or written
        moved = [*self.x, self.y, *first, *first]
        self.all_bytes = sum(part.numel() * part.element_size() for part in moved)

    def launches(self, config: StepConfig | None) -> list[Callable[[], object]]:
        """Return one launch per state, in place."""

        def make(state: SsmState) -> Callable[[], object]:
            return lambda: launch_step(
                self.x,
                self.params,
                state,
                state,
                self.y,
                self.pairing,
                live=self.live,
                config=config,
            )

        return [make(state) for state in self.states] * 2

    def torch_ms(self) -> float:
        """Return the time of the torch form, which isn't in place."""

        def step(state: SsmState) -> Callable[[], object]:
            return lambda: ssm_step(
                *self.x, self.params, state, pairing=self.pairing, impl="reference"
            )

        return median_ms([step(state) for state in self.states[:2]], replays=5)


def run_checks() -> Iterator[str]:
    """Yield a line per check passed.

    Raises:
        WrongKernel: the first that isn't.
    """
    for dtype in (torch.bfloat16, torch.float32):
        pure = dtype == torch.bfloat16
        worst = max(check_step(shape, dtype, dtype, pure=pure) for shape in CHECKS)
        yield f"{len(CHECKS)} shapes, {dtype}: y within {worst:.1e}"
    worst = check_step(CHECKS[1], torch.bfloat16, torch.float32)
    yield f"bfloat16 inputs, float32 state: y within {worst:.1e}"
    check_far_offsets()
    yield "offsets past 2^31 elements"


def measure(bandwidth: float, deadline: float | None) -> list[dict[str, Any]]:
    """Print a row per work, then with a ``deadline`` the times of ``GRID``; return all of it."""
    print(f"{'one step':37}{'floor':>7}{'ours':>7}{'ratio':>6}{'TB/s':>6}{'torch':>7}  authors")
    rows: list[dict[str, Any]] = []
    cases: list[tuple[Work, Case, float]] = []
    for work in WORKS:
        case = Case(work)
        floor = 2e3 * case.state_bytes / bandwidth
        ours = median_ms(case.launches(None))
        row = {
            "work": work.name,
            "floor_ms": floor,
            "ours_ms": ours,
            "all_bytes": case.all_bytes,
            "torch_ms": case.torch_ms(),
            "authors": work.authors,
            "config": choose_config(work.state_dtype.itemsize, work.shape.rank)._asdict(),
            "grid": [],
        }
        rows.append(row)
        cases.append((work, case, floor))
        rate = case.all_bytes / ours / 1e9
        print(
            f"{work.name:37}{floor:7.4f}{ours:7.4f}{ours / floor:6.2f}{rate:6.2f}"
            f"{row['torch_ms']:7.2f}  {work.authors}",
            flush=True,
        )
    print("milliseconds; ratio to the floor; TB/s counts all tensors, not the state alone\n")
    if deadline is not None:
        try_grid(cases, rows, deadline)
    return rows


def try_grid(
    cases: list[tuple[Work, Case, float]], rows: list[dict[str, Any]], deadline: float
) -> None:
    """Time every layout of ``GRID``, none begun after ``deadline``."""
    print("layouts: rows of a tile, warps, registers at most")
    for config in GRID:
        if time.monotonic() > deadline:
            print(f"out of time: nothing measured from {tuple(config)} on")
            break
        for (work, case, floor), row in zip(cases, rows, strict=True):
            small = dataclasses.replace(work.shape, batch=3, heads=16)
            try:
                check_step(small, torch.bfloat16, work.state_dtype, config)
                ms = median_ms(case.launches(config), replays=10)
            except WrongKernel as exc:
                print(f"wrong, not timed: {exc}")
                continue
            except (triton.runtime.errors.PTXASError, triton.runtime.OutOfResources) as exc:
                print(f"{tuple(config)!s:17} {work.name:37} {str(exc).strip().splitlines()[0]}")
                continue
            row["grid"].append(config._asdict() | {"ms": ms})
            print(f"{tuple(config)!s:17} {work.name:37}{ms:7.4f}{ms / floor:6.2f}", flush=True)
