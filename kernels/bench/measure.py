"""How the benchmarks time, and what they hold times and numbers against."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from audiossm_kernels.ssm_scan.cases import ScanInputs
from audiossm_kernels.state import SsmState

# relative L2 error: of the output, of the state
TOLERANCE = {torch.float32: (1e-4, 1e-4), torch.bfloat16: (1e-2, 5e-3)}


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
    return replay_ms(graph, replays) / len(launches)


def replay_ms(graph: torch.cuda.CUDAGraph, replays: int = 20) -> float:
    """Return the median milliseconds of a graph."""
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
    return statistics.median(start.elapsed_time(end) for start, end in events)


def copy_bandwidth() -> float:
    """Return the bytes per second, read and written, of a kernel that copies device memory."""
    size = 2**29
    buffers = [torch.zeros(size // 4, device="cuda") for _ in range(4)]
    # negation is a kernel like ours; copy_ is the driver's own copy, which is slower in a graph
    pairs = [(buffers[i], buffers[(i + 1) % 4]) for i in range(4)]
    return 2 * size / (1e-3 * median_ms([lambda a=a, b=b: torch.neg(a, out=b) for a, b in pairs]))


def eager_ms(launch: Callable[[], object], repeats: int = 3) -> float:
    """Return the milliseconds of a call outside of a graph, the first one aside."""
    times = []
    for _ in range(repeats + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        launch()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[1:])


def matmul_rate() -> float:
    """Return the FLOP per second of a large bfloat16 product."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / (1e-3 * median_ms([lambda: torch.matmul(a, b, out=out)], replays=10))
