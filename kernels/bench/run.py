"""Measure the kernels on a CUDA device: python kernels/bench/run.py [--json FILE].

First every kernel is compared with the float64 reference on this device; a wrong one isn't timed.
Times are medians over replays of a CUDA graph that rotates states larger than the cache. The floor
is the state read once and written once at the rate of a copy measured here. Needs torch and triton.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape
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
# relative L2 error: of the output, of the state
TOLERANCE = {torch.float32: (1e-4, 1e-4), torch.bfloat16: (1e-2, 5e-3)}

GRID = [
    StepConfig(64, 4, 96),
    StepConfig(64, 8),
    StepConfig(64, 4, 112),
    StepConfig(32, 4),
    StepConfig(64, 4, 128),
    StepConfig(32, 8),
    StepConfig(16, 4),
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


class WrongKernel(Exception):
    """A kernel whose numbers don't agree with the reference."""


def wide(inputs: ScanInputs) -> ScanInputs:
    """Return the same numbers in float64."""
    params = [None if x is None else x.double() for x in inputs.params]
    return ScanInputs._make(
        [
            *(x.double() for x in inputs[:8]),
            inputs.params._make(params),
            SsmState._make(x.double() for x in inputs.state),
        ]
    )


def error(got: Tensor, expected: Tensor) -> float:
    """Return the relative L2 error; NaN where anything is."""
    return float((got.double() - expected).norm() / expected.norm())


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


def median_ms(launches: list[Callable[[], object]], replays: int = 20) -> float:
    """Return the milliseconds of one launch: the median over replays of a graph of them all."""
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for launch in launches:  # compiles outside of the capture
            launch()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in launches:
            launch()
    graph.replay()
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(replays)
    ]
    for start, end in events:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) / len(launches)


def copy_bandwidth() -> float:
    """Return the bytes per second, read and written, of copies in device memory."""
    size = 2**29
    buffers = [torch.empty(size, dtype=torch.uint8, device="cuda").random_() for _ in range(4)]
    pairs = [(buffers[i], buffers[(i + 1) % 4]) for i in range(4)]
    return 2 * size / (1e-3 * median_ms([lambda a=a, b=b: b.copy_(a) for a, b in pairs]))


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


def make_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--seconds", type=float, default=50, help="no new layout after that long")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Check, measure, print."""
    args = make_parser().parse_args(argv)
    begin = time.monotonic()
    if not torch.cuda.is_available():
        print("run.py: error: needs a CUDA device: nothing measured", file=sys.stderr)
        return 1
    import triton

    device = torch.cuda.get_device_properties(0)
    report: dict[str, Any] = {
        "device": device.name,
        "processors": device.multi_processor_count,
        "cache_bytes": device.L2_cache_size,
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    print(f"{device.name}, torch {torch.__version__}, triton {triton.__version__}")
    try:
        report["checks"] = []
        for line in run_checks():
            report["checks"].append(line)
            print(f"right: {line} ({time.monotonic() - begin:.0f} s)", flush=True)
    except WrongKernel as exc:
        print(f"run.py: error: not timed, the kernel is wrong: {exc}", file=sys.stderr)
        return 1
    report["drift_2048"] = drift()
    print(f"bfloat16 state after 2048 steps: off by {report['drift_2048']:.1e} (aim 3e-2)")
    torch.cuda.empty_cache()

    bandwidth = copy_bandwidth()
    report["copy_bytes_per_s"] = bandwidth
    print(f"copy: {bandwidth / 1e12:.2f} TB/s read and written\n")
    print(f"{'one step':37}{'floor':>7}{'ours':>7}{'ratio':>6}{'TB/s':>6}{'torch':>7}  authors")
    report["works"] = []
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
        report["works"].append(row)
        cases.append((work, case, floor))
        rate = case.all_bytes / ours / 1e9
        print(
            f"{work.name:37}{floor:7.4f}{ours:7.4f}{ours / floor:6.2f}{rate:6.2f}"
            f"{row['torch_ms']:7.2f}  {work.authors}",
            flush=True,
        )
    print("milliseconds; ratio to the floor; TB/s counts all tensors, not the state alone\n")

    print("layouts: rows of a tile, warps, registers at most")
    for config in GRID:
        if time.monotonic() - begin > args.seconds:
            print(f"out of time: nothing measured from {tuple(config)} on")
            break
        for (work, case, floor), row in zip(cases, report["works"], strict=True):
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
    report["seconds"] = time.monotonic() - begin
    print(f"{device.name}: {report['seconds']:.0f} s in all")
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
