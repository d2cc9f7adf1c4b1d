"""The flat line: a step's time and a stream's memory after any context, beside attention's.

    python tests/proofs/flat_line.py [--device cpu] [--json FILE] [--model first-light]
    python tests/proofs/flat_line.py --draw FILE.json ... --picture assets/pictures/flat-line.png

One frame of one stream through the backbone of a shipped recogniser, and through as many layers of
attention with, to within a per cent, as many parameters, whose caches of keys and values hold every
frame so far: 1 thousand to 1 million of random ones. A cache is float32 on a CPU and bfloat16 on a
card, and is written where it is; attention is torch's scaled_dot_product_attention with heads of
64, as many of keys and values as of queries or, "grouped", a quarter. Where the caches of all
layers don't fit into --gib, all read that of one layer, if it is too large for a processor's own.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiossm.models import BackboneConfig, LoadedRecogniser
from audiossm.nn import RMSNorm, SwiGLU, map_state, named_tensors
from audiossm.nn.attention import rotate
from audiossm.pictures import load_pyplot

LENGTHS = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
HEAD_DIM = 64
LARGE = 2**28  # bytes of a cache that no processor keeps


class CachedAttention(nn.Module):
    """A layer of attention over everything so far, with a cache for one stream."""

    def __init__(self, d_model: int, heads: int, kv_heads: int, d_intermediate: int) -> None:
        super().__init__()
        self.sizes = [heads * HEAD_DIM, kv_heads * HEAD_DIM, kv_heads * HEAD_DIM]
        self.norm, self.norm2 = RMSNorm(d_model), RMSNorm(d_model)
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.out_proj = nn.Linear(self.sizes[0], d_model, bias=False)
        self.mlp = SwiGLU(d_model, d_intermediate)

    def step(self, x: Tensor, cache: Tensor, place: Tensor, length: int) -> Tensor:
        """Take frame ``length`` of (1, 1, d_model); ``cache`` is (2, 1, kv_heads, room, 64).

        ``place`` (1,) is the frame's number on the device.
        """
        q, k, v = (
            part.view(1, 1, -1, HEAD_DIM).transpose(1, 2)
            for part in self.in_proj(self.norm(x)).split(self.sizes, dim=-1)
        )
        cache[0, :, :, length] = rotate(k, place)[:, :, 0]
        cache[1, :, :, length] = v[:, :, 0]
        keys, values = cache[:, :, :, : length + 1]
        turned = rotate(q, place)
        if x.is_cuda:
            y = F.scaled_dot_product_attention(turned, keys, values, enable_gqa=True)
        else:  # queries that share keys stand below each other, or the keys would be copied
            shared = turned.view(1, keys.shape[1], -1, HEAD_DIM)
            y = F.scaled_dot_product_attention(shared, keys, values).view(q.shape)
        x = x + self.out_proj(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def match_width(config: BackboneConfig, heads: int, kv_heads: int) -> int:
    """Return the feed-forward width with which an attention layer has as many parameters."""
    ours = config.d_model * sum(config.mixer.split_sizes) + config.mixer.d_inner * config.d_model
    theirs = config.d_model * HEAD_DIM * (2 * heads + 2 * kv_heads)
    return config.d_intermediate + round((ours - theirs) / (3 * config.d_model) / 8) * 8


@torch.no_grad()
def time_call(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the lower quartile of a call's milliseconds, over as many as fit into some seconds.

    A shared machine disturbs a few of them, and never makes one faster.
    """
    times: list[float] = []
    call()
    ends = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < ends and len(times) < 200):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begun))
    return round(sorted(times)[len(times) // 4], 4)


def capture(call: Callable[[], object]) -> Callable[[], object]:
    """Return a call as one CUDA graph: launches would hide what a length costs."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no hint for it
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time both at every length."""
    device = torch.device(args.device)
    recogniser = LoadedRecogniser.load(args.model, device=args.device, backend="torch").network
    config, dtype = recogniser.config.backbone, torch.float32
    if device.type == "cuda":
        dtype = torch.bfloat16
    wrap = capture if device.type == "cuda" else (lambda call: call)
    blocks = [block.to(dtype) for block in recogniser.blocks()]
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "model": args.model,
        "layers": config.num_layers,
        "parameters": {"mamba": sum(p.numel() for b in blocks for p in b.parameters())},
        "rows": [],
    }
    x = torch.randn(1, 1, config.d_model, device=device, dtype=dtype)
    heads = config.mixer.num_heads
    ways = {"attention": heads, "grouped": max(heads // 4, 1)}

    # a state is random, too; but it is the same size after any number of frames
    states = [map_state(lambda part: torch.randn_like(part) * 0.1, b.init_state(1)) for b in blocks]
    state_bytes = sum(t.numel() * t.element_size() for s in states for _, t in named_tensors(s))

    def run_mamba() -> Tensor:
        y = x
        for i, block in enumerate(blocks):
            y, after = block.step(y, states[i])
            for (_, old), (_, new) in zip(
                named_tensors(states[i]), named_tensors(after), strict=True
            ):
                old.copy_(new)
        return y

    step_mamba = wrap(run_mamba)
    layers = {}
    for way, kv_heads in ways.items():
        torch.manual_seed(0)
        width = match_width(config, heads, kv_heads)
        layers[way] = [
            CachedAttention(config.d_model, heads, kv_heads, width).to(device, dtype)
            for _ in range(config.num_layers)
        ]
        found["parameters"][way] = sum(p.numel() for b in layers[way] for p in b.parameters())
    for length in args.lengths:
        row: dict[str, Any] = {"frames": length}
        row["mamba_ms"] = time_call(step_mamba, device, args.seconds)
        row["mamba_bytes"] = state_bytes
        for way, kv_heads in ways.items():
            layer_bytes = 2 * kv_heads * HEAD_DIM * (length + 1) * dtype.itemsize
            row[f"{way}_bytes"] = layer_bytes * config.num_layers
            own = row[f"{way}_bytes"] <= args.gib * 2**30
            if not own and not LARGE < layer_bytes <= args.gib * 2**30:
                print(
                    f"{way} at {length} frames: {layer_bytes / 2**30:.1f} GiB a layer", flush=True
                )
                continue
            row[f"{way}_own"] = own
            shape = (config.num_layers if own else 1, 2, 1, kv_heads, length + 1, HEAD_DIM)
            caches = torch.empty(shape, device=device, dtype=dtype).uniform_(-1, 1)
            place = torch.tensor([length], device=device)

            def run_attention(
                way: str = way, caches: Tensor = caches, place: Tensor = place, at: int = length
            ) -> Tensor:
                y = x
                for i, layer in enumerate(layers[way]):
                    y = layer.step(y, caches[i % len(caches)], place, at)
                return y

            row[f"{way}_ms"] = time_call(wrap(run_attention), device, args.seconds)
            del caches, run_attention
            if device.type == "cuda":
                torch.cuda.empty_cache()
        found["rows"].append(row)
        print(json.dumps(row), flush=True)
    return found


def draw(files: list[Path], picture: Path) -> None:
    """Draw what was measured, a column for each file: time above memory."""
    pyplot = load_pyplot()
    columns = [json.loads(path.read_text()) for path in files]
    figure, axes = pyplot.subplots(
        2, len(columns), figsize=(4.5 * len(columns), 6), layout="constrained", squeeze=False
    )
    names = {"mamba": "Mamba-3", "attention": "attention", "grouped": "attention, grouped heads"}
    for (upper, lower), found in zip(axes.T, columns, strict=True):
        for way, name in names.items():
            rows = [row for row in found["rows"] if f"{way}_ms" in row]
            frames = [row["frames"] for row in rows]
            upper.plot(frames, [row[f"{way}_ms"] for row in rows], marker="o", label=name)
            sizes = [row[f"{way}_bytes"] / 2**20 for row in found["rows"]]
            lower.plot([row["frames"] for row in found["rows"]], sizes, marker="o", label=name)
        upper.set(title=found["label"] if "label" in found else found["device"])
        upper.set(ylabel="ms per step", xscale="log", yscale="log")
        lower.set(ylabel="MiB per stream", xscale="log", yscale="log", xlabel="frames of context")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    figure.savefig(picture, dpi=80)
    pyplot.close(figure)


def main() -> int:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="first-light", help="a recogniser: a name or a folder")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing at each length")
    parser.add_argument("--gib", type=float, default=12.0, help="most for a cache")
    parser.add_argument("--label", help="names the machine in the picture")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--draw", type=Path, nargs="+", metavar="JSON", help="draw these instead")
    parser.add_argument("--picture", type=Path, default=Path("flat-line.png"))
    args = parser.parse_args()
    if args.draw:
        draw(args.draw, args.picture)
        return 0
    found = measure(args)
    if args.label:
        found["label"] = args.label
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    first, last = found["rows"][0], found["rows"][-1]
    flat = last["mamba_ms"] / first["mamba_ms"]
    print(f"Mamba-3: {flat:.2f} times the time at {last['frames']} frames", flush=True)
    return 0 if flat < 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
