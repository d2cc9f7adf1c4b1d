"""The scan and a whole layer: what is checked and what is timed."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measure import TOLERANCE, WrongKernel, eager_ms, error, median_ms, wide
from torch import Tensor
from torch.nn import functional as F

from audiossm_kernels.projection import make_steps, norm_vectors
from audiossm_kernels.ssm_scan import ssm_scan
from audiossm_kernels.ssm_scan.cases import ScanInputs, ScanShape, make_inputs
from audiossm_kernels.ssm_scan.triton_forward import ScanConfig, choose_config, launch_forward
from audiossm_kernels.state import SsmInputs, SsmParams, SsmState

# one layer of the 1.5B model
D_MODEL = 2048
LAYER = ScanShape(frames=16384, batch=1, heads=64, head_dim=64, d_state=128)
SMALL = ScanShape(frames=300, batch=2, heads=4, head_dim=64, d_state=128)
TIMED = [SMALL, dataclasses.replace(SMALL, rank=4)]
CHECKS = [
    dataclasses.replace(SMALL, rank=2, groups=2, head_dim=48, d_state=64, rope_fraction=1.0),
    dataclasses.replace(SMALL, rank=8, head_dim=128, d_state=256, groups=2),
    dataclasses.replace(SMALL, rank=4, head_dim=20, d_state=24, angle_heads=4, out_norm=True),
    dataclasses.replace(SMALL, head_dim=16, d_state=16, rope_fraction=1.0),
    dataclasses.replace(SMALL, head_dim=128, d_state=64, out_norm=True, angle_heads=4),
    dataclasses.replace(SMALL, head_dim=32, d_state=200, groups=2),
]
# frames of a segment for each head: one that cuts the small shapes and one that doesn't
CUT, WHOLE = 16, 1024

# by rank, the best guesses first
PAIRS = ScanConfig(64, 4, first_registers=168, pairs=True)
AGAIN = PAIRS._replace(again=True, ahead=True)
AHEAD = PAIRS._replace(ahead=True)
GRID = [
    (1, AGAIN),
    (4, AHEAD),
    (1, PAIRS._replace(num_stages=2)),
    (4, PAIRS),
    (1, AGAIN._replace(ahead=False)),
    (4, PAIRS._replace(num_stages=2)),
    (1, AGAIN._replace(pairs=False)),
    (4, AHEAD._replace(pairs=False)),
    (1, AGAIN._replace(num_warps=8, registers=128, first_registers=128)),
    (4, AHEAD._replace(num_warps=8, registers=128, first_registers=128)),
    (1, AGAIN._replace(block_p=32, registers=168)),
    (4, AHEAD._replace(block_p=32, registers=168)),
    (1, AGAIN._replace(segment=16)),
    (4, AHEAD._replace(segment=16)),
    (1, AGAIN._replace(first_registers=128)),
    (4, AHEAD._replace(rows=128, num_warps=8, first_registers=128)),
    (1, PAIRS._replace(num_stages=2, pairs=False)),
]


@dataclasses.dataclass(frozen=True)
class Work:
    """A row of a table."""

    name: str
    shape: ScanShape
    authors: str  # milliseconds and card


def works(authors: list[str]) -> list[Work]:
    """Return SISO and MIMO, one long row and eight short ones, in that order."""
    found = []
    for rank, name in ((1, "SISO"), (4, "MIMO R=4")):
        for batch, frames in ((1, 16384), (8, 2048)):
            shape = dataclasses.replace(LAYER, rank=rank, batch=batch, frames=frames)
            label = f"{name}, {batch} x {frames}"
            found.append(Work(label, shape, authors[len(found)]))
    return found


SCANS = works(["2.70 (H200)", "1.34 (H200)", "-", "-"])
LAYERS = works(["-", "-", "9.30 (H200)", "3.80 (H200)"])


def check_scan(shape: ScanShape, dtype: torch.dtype, config: ScanConfig) -> float:
    """Hold one case to the chunked form in float64 and return the error of its output.

    Three runs into poisoned memory have equal bits.

    Raises:
        WrongKernel: what doesn't hold, and by how much.
    """
    inputs = make_inputs(shape, dtype, "cuda")
    label = f"{shape}, {dtype}, {config}"
    expected_y, expected = ssm_scan(*wide(inputs), pairing=shape.pairing, impl="chunked")
    runs = [launch(inputs, shape, config) for _ in range(3)]
    for run in runs[1:]:
        if not all(map(torch.equal, runs[0], run)):
            raise WrongKernel(f"{label}: two equal runs have different bits")
    y, *rest = runs[0]
    state = SsmState._make(rest)
    turns = (state.angle.double() - expected.angle) / (2 * torch.pi)
    limit, state_limit = TOLERANCE[dtype]
    found = {
        "y": (error(y, expected_y), limit),
        "angle": (float((turns - turns.round()).abs().max()), 1.6e-5),
    }
    for name in ("ssm", "k", "v"):
        found[name] = (error(getattr(state, name), getattr(expected, name)), state_limit)
    for name, (value, most) in found.items():
        if not value <= most:
            raise WrongKernel(f"{label}: {name} is off by {value:.1e}, not at most {most:.0e}")
    return found["y"][0]


def launch(inputs: ScanInputs, shape: ScanShape, config: ScanConfig) -> list[Tensor]:
    """Run the kernels; memory that they should fill holds NaN before."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    y, state, _ = launch_forward(
        SsmInputs._make(inputs[:8]), inputs.params, inputs.state, shape.pairing, config=config
    )
    torch.use_deterministic_algorithms(False)
    return [y, *state]


def check_packed(rank: int) -> float:
    """Hold packed sequences, some empty, to the chunked form in float64.

    Raises:
        WrongKernel: they are off.
    """
    lengths = [130, 0, 64, 1, 300, 0]
    shape = dataclasses.replace(
        SMALL, frames=sum(lengths), batch=1, state_batch=len(lengths), rank=rank
    )
    inputs = make_inputs(shape, torch.bfloat16, "cuda")
    borders = torch.tensor([0, *lengths], device="cuda").cumsum(0)
    y, state = ssm_scan(*inputs, pairing=shape.pairing, cu_seqlens=borders, impl="triton")
    expected_y, expected = ssm_scan(
        *wide(inputs), pairing=shape.pairing, cu_seqlens=borders, impl="chunked"
    )
    off, state_off = error(y, expected_y), error(state.ssm, expected.ssm)
    if not (off <= 1e-2 and state_off <= 5e-3):
        raise WrongKernel(f"packed, rank {rank}: y is off by {off:.1e}, ssm by {state_off:.1e}")
    return off


def check_far_offsets() -> None:
    """Scan more than 2^31 values whose last frames are the first ones, as rows and packed.

    Raises:
        WrongKernel: they come out different.
    """
    shape = dataclasses.replace(LAYER, frames=4096)
    inputs = make_inputs(shape, torch.bfloat16, "cuda")
    times = 2**31 // inputs.v.numel() + 2
    state = SsmState._make(part.repeat(times, *[1] * (part.dim() - 1)) for part in inputs.state)
    x = [part.repeat(times, *[1] * (part.dim() - 1)) for part in inputs[:8]]
    borders = torch.arange(times + 1, device="cuda") * shape.frames
    for packed in (False, True):
        if packed:
            x = [part.flatten(0, 1).unsqueeze(0) for part in x]
        y, new = ssm_scan(
            *x,
            inputs.params,
            state,
            pairing=shape.pairing,
            cu_seqlens=borders if packed else None,
            impl="triton",
        )
        y = y.view(times, *shape_of_row(shape))
        for part in (y, *new):
            if not torch.equal(part[0], part[-1]):
                raise WrongKernel("offsets past 2^31 elements: the last row isn't the first")


def shape_of_row(shape: ScanShape) -> tuple[int, int, int]:
    """Return (L, H, P)."""
    return shape.frames, shape.heads, shape.head_dim


def run_checks(*, few: bool) -> Iterator[str]:
    """Yield a line per check passed; with ``few`` only of the sizes that are timed.

    Raises:
        WrongKernel: the first that isn't.
    """
    for shape in TIMED:
        config = choose_config(2, shape.rank, shape.d_state)
        for frames, segment in ((300, WHOLE), (300, CUT), (600, CUT)):
            part = dataclasses.replace(shape, frames=frames)
            off = check_scan(part, torch.bfloat16, config._replace(segment=segment))
            yield (
                f"scan, rank {shape.rank}, {frames} frames, segment {segment} per head: "
                f"y within {off:.1e}"
            )
    if few:
        return
    for rank in (1, 4):
        yield f"packed sequences, rank {rank}: y within {check_packed(rank):.1e}"
    for dtype in (torch.bfloat16, torch.float32):
        shapes = CHECKS if dtype == torch.bfloat16 else [*TIMED, *CHECKS]
        for shape in shapes:
            config = choose_config(dtype.itemsize, shape.rank, shape.d_state)
            off = check_scan(shape, dtype, config._replace(segment=CUT))
            yield f"scan, {dtype}, {shape}: y within {off:.1e}"
    check_far_offsets()
    yield "offsets past 2^31 elements"


def long_inputs(shape: ScanShape) -> ScanInputs:
    """Return inputs of bfloat16 that repeat a few hundred frames."""
    few = make_inputs(dataclasses.replace(shape, batch=1, frames=512), torch.bfloat16, "cuda")

    def fill(x: Tensor) -> Tensor:
        times = -(-shape.frames // 512)
        return x.repeat(shape.batch, times, *[1] * (x.dim() - 2))[:, : shape.frames].contiguous()

    state = SsmState._make(x.repeat(shape.batch, *[1] * (x.dim() - 1)) for x in few.state)
    return ScanInputs._make([*(fill(x) for x in few[:8]), few.params, state])


def scan_flop(shape: ScanShape) -> float:
    """Return the FLOP of the four products of every chunk of 64 rows."""
    rows, n, p = 64, shape.d_state, shape.head_dim
    chunks = shape.batch * shape.frames * shape.rank / rows
    return chunks * shape.heads * (2 * rows**2 * (n + p) + 4 * rows * n * p)


def scan_bytes(inputs: ScanInputs) -> float:
    """Return the bytes that have to be read and written, every tensor once."""
    moved = [*inputs[:8], inputs.v, *inputs.state, *inputs.state]
    return sum(part.numel() * part.element_size() for part in moved)


def measure(bandwidth: float, rate: float, deadline: float | None) -> list[dict[str, Any]]:
    """Print a row per scan, then with a ``deadline`` the times of ``GRID``; return all of it."""
    print(
        f"{'scan, bfloat16':22}{'bytes':>7}{'FLOP':>7}{'ours':>7}{'ratio':>6}{'torch':>8}  authors"
    )
    rows = []
    for work in SCANS:
        inputs, pairing = long_inputs(work.shape), work.shape.pairing
        run = make_run(inputs, pairing, None)
        by_bytes, by_flop = 1e3 * scan_bytes(inputs) / bandwidth, 1e3 * scan_flop(work.shape) / rate
        floor = max(by_bytes, by_flop)
        ours = median_ms([run])

        def chunked(inputs: ScanInputs = inputs, pairing: Any = pairing) -> object:
            return ssm_scan(*inputs, pairing=pairing, impl="chunked")

        with torch.no_grad():
            torch_ms = eager_ms(chunked, 2)
        row: dict[str, Any] = {
            "work": work.name,
            "bytes_ms": by_bytes,
            "flop_ms": by_flop,
            "ours_ms": ours,
            "torch_ms": torch_ms,
            "authors": work.authors,
            "config": choose_config(2, work.shape.rank, work.shape.d_state)._asdict(),
            "grid": [],
        }
        rows.append(row)
        print(
            f"{work.name:22}{by_bytes:7.3f}{by_flop:7.3f}{ours:7.3f}{ours / floor:6.2f}"
            f"{torch_ms:8.2f}  {work.authors}",
            flush=True,
        )
    print("milliseconds; floors by bytes and by FLOP, ratio to the larger one\n")
    torch.cuda.empty_cache()
    if deadline is not None:
        try_grid(rows, deadline)
    return rows


def make_run(
    inputs: ScanInputs, pairing: Any, config: ScanConfig | None
) -> Callable[[], tuple[Tensor, SsmState, object]]:
    """Return a call of the kernels."""
    x = SsmInputs._make(inputs[:8])
    return lambda: launch_forward(x, inputs.params, inputs.state, pairing, config=config)


def try_grid(rows: list[dict[str, Any]], deadline: float) -> None:
    """Time every layout of ``GRID``, none begun after ``deadline``."""
    print("layouts: " + ", ".join(ScanConfig._fields))
    cases = []
    for work, row in zip(SCANS, rows, strict=True):
        inputs = long_inputs(work.shape)
        cases.append((work, row, inputs, make_run(inputs, work.shape.pairing, None)()[0]))
    for rank, config in GRID:
        for work, row, inputs, expected in cases:
            if work.shape.rank != rank:
                continue
            if time.monotonic() > deadline:
                print(f"out of time: nothing measured from {tuple(config)} on")
                return
            label = f"{tuple(config)!s:22} {work.name:22}"
            try:
                run = make_run(inputs, work.shape.pairing, config)
                off = error(run()[0], expected.double())
                if not off <= 1e-2:
                    print(f"{label} wrong: {off:.1e} from the shipped layout")
                    continue
                ms = median_ms([run], replays=10)
            except Exception as exc:  # a layout that doesn't compile must not end the table
                print(f"{label} {type(exc).__name__}: {str(exc).strip().splitlines()[0][:120]}")
                continue
            row["grid"].append(config._asdict() | {"ms": ms})
            print(f"{label}{ms:7.3f}", flush=True)


class Layer:
    """A mixer of the 1.5B model between its norms: two projections and the scan."""

    def __init__(self, shape: ScanShape) -> None:
        generator = torch.Generator("cuda").manual_seed(0)
        inner, vectors = shape.heads * shape.head_dim, shape.rank * shape.groups * shape.d_state
        self.shape = shape
        self.widths = [inner, inner, vectors, vectors, *[shape.heads] * 3, shape.num_angles]

        def normal(*size: int, scale: float) -> Tensor:
            x = torch.randn(*size, generator=generator, device="cuda") * scale
            return x.bfloat16()

        lead = (shape.batch, shape.frames)
        self.u = normal(*lead, D_MODEL, scale=1.0)
        self.w_in = normal(sum(self.widths), D_MODEL, scale=D_MODEL**-0.5)
        self.w_out = normal(D_MODEL, inner, scale=inner**-0.5)
        self.norm = torch.ones(shape.d_state, device="cuda", dtype=torch.bfloat16)
        self.dt_bias = torch.full((shape.heads,), -3.0, device="cuda")
        case = make_inputs(dataclasses.replace(shape, frames=1), torch.bfloat16, "cuda")
        self.params: SsmParams = case.params
        self.state: SsmState = case.state

    def __call__(self, impl: str) -> Tensor:
        shape, lead = self.shape, self.u.shape[:2]
        z, x, k, q, dt, a, trap, angles = F.linear(self.u, self.w_in).split(self.widths, dim=-1)
        vectors = (*lead, shape.rank, shape.groups, shape.d_state)
        k, q = (norm_vectors(part.view(vectors), self.norm) for part in (k, q))
        dt, adt = make_steps(dt, a, self.dt_bias, "heavy_tail", 1e-4, None)
        heads = (*lead, shape.heads, shape.head_dim)
        y, _ = ssm_scan(
            q,
            k,
            x.view(heads),
            z.view(heads),
            dt,
            adt,
            trap,
            angles.unsqueeze(2),
            self.params,
            self.state,
            pairing=shape.pairing,
            impl=impl,
        )
        return F.linear(y.flatten(2), self.w_out)

    def flop(self) -> float:
        """Return the FLOP of both projections and the scan."""
        weights = self.w_in.numel() + self.w_out.numel()
        return 2.0 * self.u[..., 0].numel() * weights + scan_flop(self.shape)

    def bytes(self) -> float:
        """Return the bytes of what goes in and out, weights included."""
        parts = [self.u, self.u, self.w_in, self.w_out, *self.state, *self.state]
        return sum(part.numel() * part.element_size() for part in parts)


@torch.no_grad()
def measure_layers(bandwidth: float, rate: float) -> list[dict[str, Any]]:
    """Print a row per layer and return the numbers."""
    print(
        f"{'layer, bfloat16':22}{'bytes':>7}{'FLOP':>7}{'ours':>7}{'ratio':>6}{'torch':>8}  authors"
    )
    rows = []
    for work in LAYERS:
        layer = Layer(work.shape)
        by_bytes, by_flop = 1e3 * layer.bytes() / bandwidth, 1e3 * layer.flop() / rate
        off = error(layer("triton"), layer("chunked").double())
        if not off <= 3e-2:
            raise WrongKernel(f"layer {work.name}: {off:.1e} from the torch form")
        ours = median_ms([lambda layer=layer: layer("triton")])
        torch_ms = eager_ms(lambda layer=layer: layer("chunked"), 2)
        floor = max(by_bytes, by_flop)
        rows.append(
            {
                "work": work.name,
                "bytes_ms": by_bytes,
                "flop_ms": by_flop,
                "ours_ms": ours,
                "torch_ms": torch_ms,
                "authors": work.authors,
            }
        )
        print(
            f"{work.name:22}{by_bytes:7.3f}{by_flop:7.3f}{ours:7.3f}{ours / floor:6.2f}"
            f"{torch_ms:8.2f}  {work.authors}",
            flush=True,
        )
    print("milliseconds; in_proj, norms, scan, out_proj\n")
    return rows
