"""Measure the scan's backward on a CUDA device: python kernels/bench/training.py [--grid].

First the gradients are compared with float64 autograd of the torch form; wrong ones aren't timed.
Then: the scan's forward and backward, each kernel of them, and a whole layer forward and backward.
With --grid every layout is compiled in a process of its own, all at a time, and timed after that.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import WrongKernel, eager_ms, error, matmul_rate, median_ms
from scan import LAYER, SMALL, Layer, Work, long_inputs

from audiossm_kernels.ssm_scan import ssm_scan, triton_forward, triton_scan
from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape, make_inputs
from audiossm_kernels.ssm_scan.layout import ScanLayout, chunk_frames
from audiossm_kernels.ssm_scan.triton_backward import (
    CONFIGS,
    BackwardConfig,
    choose_config,
    launch_backward,
)
from audiossm_kernels.ssm_scan.triton_forward import launch_forward
from audiossm_kernels.state import SsmInputs, SsmParams, SsmState

BATCHED = dataclasses.replace(LAYER, batch=8, frames=2048)
WORKS = [
    Work("SISO, 8 x 2048", BATCHED, "9.07 (H200)"),
    Work("MIMO R=4, 8 x 2048", dataclasses.replace(BATCHED, rank=4), "21.5 (H200)"),
]
CHECKS = [
    (SMALL, torch.bfloat16),
    (dataclasses.replace(SMALL, rank=4), torch.bfloat16),
    (SMALL, torch.float32),
    (dataclasses.replace(SMALL, rank=4), torch.float32),
    (dataclasses.replace(SMALL, rank=2, groups=2, out_norm=True), torch.bfloat16),
    (dataclasses.replace(SMALL, rank=8, angle_heads=4, rope_fraction=1.0), torch.bfloat16),
    (dataclasses.replace(SMALL, head_dim=20, d_state=23), torch.bfloat16),
    (dataclasses.replace(SMALL, head_dim=128, d_state=128), torch.bfloat16),
    (dataclasses.replace(SMALL, d_state=256), torch.bfloat16),
]
# relative L2 error: of most gradients; of dt, adt, trap and angles
TOLERANCE = {torch.float32: (2e-4, 2e-4), torch.bfloat16: (2e-2, 5e-2)}

# the best guesses come first
GRID = [
    BackwardConfig(),
    BackwardConfig(8, 8, 8),
    BackwardConfig(8, 8, 8, registers=(128, 128, 128)),
    BackwardConfig(registers=(168, 168, 168)),
    BackwardConfig(registers=(128, 128, 128)),
    BackwardConfig(carry_elements=2**12),
    BackwardConfig(carry_elements=2**12, carry_stages=2),
    BackwardConfig(carry_stages=2),
    BackwardConfig(state_elements=2**12),
]


def leaves(inputs: ScanInputs, dtype: torch.dtype | None = None) -> ScanInputs:
    """Return copies that take gradients, in their dtype or another one."""

    def leaf(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.detach().to(dtype or x.dtype).clone().requires_grad_()

    return ScanInputs(
        *(leaf(x) for x in inputs[:8]),
        SsmParams._make(leaf(x) for x in inputs.params),
        SsmState._make(leaf(x) for x in inputs.state),
    )


def gradients(inputs: ScanInputs, shape: ScanShape, impl: str) -> dict[str, Tensor]:
    """Return all gradients of random weights of the output and the state."""
    y, state = ssm_scan(*inputs, pairing=shape.pairing, impl=impl)
    generator = torch.Generator().manual_seed(1)
    outputs = [y, *state]
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    params = {n: x for n, x in inputs.params._asdict().items() if x is not None}
    state_names = {f"state.{n}": x for n, x in inputs.state._asdict().items()}
    named = dict(zip(SsmInputs._fields, inputs[:8], strict=True)) | params | state_names
    return dict(
        zip(named, torch.autograd.grad(outputs, list(named.values()), weights), strict=True)
    )


def check(shape: ScanShape, dtype: torch.dtype) -> str:
    """Hold all gradients of one case to float64 autograd; twice, into poisoned memory.

    Raises:
        WrongKernel: what doesn't hold, and by how much.
    """
    inputs = make_inputs(shape, dtype, "cuda")
    expected = gradients(leaves(inputs, torch.float64), shape, "chunked")
    own = leaves(inputs)
    torch.use_deterministic_algorithms(True, warn_only=True)  # new memory holds NaN
    runs = [gradients(own, shape, "triton") for _ in range(2)]
    torch.use_deterministic_algorithms(False)
    found = {name: error(got, expected[name]) for name, got in runs[0].items()}
    for name, off in found.items():
        most = TOLERANCE[dtype][name in ("dt", "adt", "trap", "angles")]
        if not off <= most:
            raise WrongKernel(f"{shape}, {dtype}: {name} is off by {off:.1e}; all: {found}")
        if not torch.equal(runs[0][name], runs[1][name]):
            raise WrongKernel(f"{shape}, {dtype}: {name} has different bits in two runs")
    worst = max(found, key=lambda name: found[name])
    return f"{shape}, {dtype}: {worst} within {found[worst]:.1e}, the worst"


class Case:
    """A forward that was run, and what its backward takes."""

    def __init__(self, shape: ScanShape) -> None:
        self.shape = shape
        self.inputs = long_inputs(shape)
        self.x, self.dy = SsmInputs._make(self.inputs[:8]), torch.randn_like(self.inputs.v)
        _, self.new, self.kept = self.forward()
        chunk = chunk_frames(shape.rank, 2)
        self.layout = ScanLayout(shape.batch, shape.frames, chunk, False)

    def forward(self) -> Any:
        """Run the forward as training does."""
        inputs = self.inputs
        return launch_forward(self.x, inputs.params, inputs.state, self.shape.pairing, keep=True)

    def backward(self, config: BackwardConfig | None = None) -> Any:
        """Run the backward; final states take no part in the loss, as in training."""
        return launch_backward(
            self.x,
            self.inputs.params,
            self.inputs.state,
            self.shape.pairing,
            self.layout,
            self.kept,
            self.new,
            self.dy,
            (None,) * 4,
            config=config,
        )


def print_kernels(run: Callable[[], object]) -> None:
    """Print the device's time of every kernel of a call that takes 2 percent or more of it."""
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in events)
    for event in events:
        if event.self_device_time_total >= 0.02 * total:
            print(
                f"    {event.self_device_time_total / 1e3:7.3f} {event.count:3} x {event.key[:70]}"
            )


def measure_layer(work: Work, rate: float) -> dict[str, Any]:
    """Print and return the times of a layer, forward and backward."""
    layer = Layer(work.shape)
    parts = [p for p in layer.params if p is not None]
    inputs = [layer.u, layer.w_in, layer.w_out, layer.norm, *parts]
    for part in inputs:
        part.requires_grad_()
    dy = torch.randn_like(layer.u)

    def train(impl: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(layer(impl), inputs, dy)

    for name, got, expected in zip(
        ("u", "w_in", "w_out"), train("triton"), train("chunked"), strict=False
    ):
        if not error(got, expected.double()) <= 5e-2:
            raise WrongKernel(f"layer {work.name}: {name} is off by {error(got, expected):.1e}")
    floor = 3e3 * layer.flop() / rate
    ours, alone = median_ms([lambda: train("triton")]), eager_ms(lambda: train("triton"))
    torch_ms = eager_ms(lambda: train("chunked"), 2)
    print(
        f"{work.name:22}{floor:7.2f}{ours:7.2f}{ours / floor:6.2f}{alone:8.2f}{torch_ms:8.2f}"
        f"  {work.authors}",
        flush=True,
    )
    print_kernels(lambda: train("triton"))
    return {
        "work": work.name,
        "floor_ms": floor,
        "ours_ms": ours,
        "eager_ms": alone,
        "torch_ms": torch_ms,
        "authors": work.authors,
    }


def change_rows(rows: int) -> None:
    """Make chunks of ``rows`` rows in this process, for bfloat16 inputs."""

    def frames(rank: int, itemsize: int) -> int:
        return max(1, (rows if itemsize == 2 else 32) // rank)

    for module in (sys.modules[__name__], triton_forward, triton_scan):
        module.chunk_frames = frames  # type: ignore[attr-defined]
    warps = 8 if rows > 64 else 4
    triton_forward.CONFIGS[2] = {(8, 256): triton_forward.ScanConfig(rows, warps)}
    for limits in CONFIGS[2]:
        CONFIGS[2][limits] = BackwardConfig(warps, warps, warps)
    GRID[:] = [config for config in GRID if config.values_warps == warps]


def compile_all(seconds: float, rows: int | None) -> None:
    """Compile every layout of the grid, each in a process of its own."""
    command = [sys.executable, __file__]
    if rows is not None:
        command += ["--rows", str(rows)]
    command.append("--compile")
    running = [
        subprocess.Popen([*command, str(index)], stderr=subprocess.DEVNULL)
        for index in range(len(GRID) * len(WORKS))
    ]
    deadline = time.monotonic() + seconds
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def compile_one(index: int) -> int:
    """Run one layout on few frames of the timed sizes, so that the compiled kernels are cached."""
    work, config = WORKS[index % len(WORKS)], GRID[index // len(WORKS)]
    try:
        Case(dataclasses.replace(work.shape, frames=64)).backward(config)
    except Exception as exc:  # the grid prints it
        return len(str(exc)) and 1
    return 0


def try_grid(cases: list[tuple[Work, Case]], deadline: float) -> list[dict[str, Any]]:
    """Print and return the backward's time with every layout, none begun after ``deadline``."""
    print("layouts: " + ", ".join(BackwardConfig._fields))
    found: list[dict[str, Any]] = []
    for config in GRID:
        for work, case in cases:
            if time.monotonic() > deadline:
                print(f"out of time: nothing measured from {tuple(config)} on")
                return found
            label = f"{tuple(config)!s:32} {work.name:22}"
            try:
                expected, got = case.backward()[0].q, case.backward(config)[0].q
                if not error(got, expected.double()) <= 1e-2:
                    print(f"{label} wrong")
                    continue
                ms = median_ms([lambda case=case, config=config: case.backward(config)], 5)
            except Exception as exc:  # a layout that doesn't compile must not end the table
                print(f"{label} {type(exc).__name__}: {str(exc).strip().splitlines()[0][:100]}")
                continue
            found.append({"work": work.name, "ms": ms} | config._asdict())
            print(f"{label}{ms:8.3f}", flush=True)
    return found


def make_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--grid", action="store_true", help="try other layouts")
    parser.add_argument(
        "--seconds", type=float, default=240, help="no new layout after that long (%(default)s)"
    )
    parser.add_argument("--checks", type=int, default=len(CHECKS), help="how many (%(default)s)")
    parser.add_argument(
        "--rows", type=int, help="rows of a chunk's products, for both directions (as shipped)"
    )
    parser.add_argument("--compile", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Check, measure, print."""
    args = make_parser().parse_args(argv)
    begin = time.monotonic()
    if not torch.cuda.is_available():
        print("training.py: error: needs a CUDA device: nothing measured", file=sys.stderr)
        return 1
    if args.rows is not None:
        change_rows(args.rows)
    if args.compile is not None:
        return compile_one(args.compile)
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(0)}
    print(report["device"])
    try:
        for shape, dtype in CHECKS[: args.checks]:
            print(f"right: {check(shape, dtype)} ({time.monotonic() - begin:.0f} s)", flush=True)
        cases = [(work, Case(work.shape)) for work in WORKS]
        print(f"{'scan':22}{'forward':>9}{'backward':>9}")
        for work, case in cases:
            forward, backward = median_ms([case.forward]), median_ms([case.backward])
            config = choose_config(2, work.shape.rank, work.shape.d_state)
            report[work.name] = {"forward_ms": forward, "backward_ms": backward}
            print(f"{work.name:22}{forward:9.3f}{backward:9.3f}  {tuple(config)}", flush=True)
            print_kernels(case.backward)
        if args.grid:
            compile_all(args.seconds / 2, args.rows)
            report["grid"] = try_grid(cases, begin + args.seconds)
        del cases, case
        torch.cuda.empty_cache()
        rate = matmul_rate()
        print(f"{'layer':22}{'floor':>7}{'ours':>7}{'ratio':>6}{'eager':>8}{'torch':>8}  authors")
        report["layers"] = [measure_layer(work, rate) for work in WORKS]
    except WrongKernel as exc:
        print(f"training.py: error: not timed, the kernel is wrong: {exc}", file=sys.stderr)
        return 1
    report["seconds"] = time.monotonic() - begin
    print(f"milliseconds, forward and backward; {report['seconds']:.0f} s in all")
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
