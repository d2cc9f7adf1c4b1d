"""The step of a whole backbone, as an engine takes it: one CUDA graph over slots."""

from typing import Any

import torch
from measure import WrongKernel, error, replay_ms

from audiossm.nn import Block, BlockSlots, Mamba3Config, RMSNorm

# the published 1.5B models: 24 layers of 2048 channels, state 128
D_MODEL, NUM_LAYERS = 2048, 24
VARIANTS = {
    "SISO": (Mamba3Config(d_model=D_MODEL), 4096),
    "MIMO R=4": (Mamba3Config(d_model=D_MODEL, is_mimo=True, mimo_rank=4), 3840),
}
AUTHORS = {("SISO", 128): "7.6 (H100)", ("MIMO R=4", 128): "8.1 (H100)"}


@torch.no_grad()
def check(config: Mamba3Config, width: int) -> float:
    """Hold two layers in slots to the layers themselves, and return the error.

    Raises:
        WrongKernel: they are off.
    """
    torch.manual_seed(0)
    blocks = [Block(config, width).eval().to("cuda", torch.bfloat16) for _ in range(2)]
    norm = RMSNorm(D_MODEL).to("cuda", torch.bfloat16)
    slots = BlockSlots(blocks, norm, num_slots=3, impl="triton")
    states = [block.init_state(3) for block in blocks]
    for _ in range(4):
        frame = torch.randn(3, D_MODEL, device="cuda")
        y, x = slots.step(frame), frame.unsqueeze(1)
        for i, block in enumerate(blocks):
            x, states[i] = block.step(x, states[i])
        off = error(y, norm(x)[:, 0].double())
        if not off <= 2e-2:
            raise WrongKernel(f"two layers in slots, rank {config.rank}: off by {off:.1e}")
    return off


@torch.no_grad()
def measure(bandwidth: float) -> list[dict[str, Any]]:
    """Print and return the times of a step at several batches, states in bfloat16."""
    rows = []
    print(f"{'24 layers, one step':26}{'floor':>7}{'ours':>7}{'ratio':>6}  authors")
    for name, (config, width) in VARIANTS.items():
        off = check(config, width)
        blocks = [Block(config, width).eval().to("cuda", torch.bfloat16) for _ in range(NUM_LAYERS)]
        norm = RMSNorm(D_MODEL).to("cuda", torch.bfloat16)
        weights = sum(p.numel() * p.element_size() for block in blocks for p in block.parameters())
        slots = BlockSlots(blocks, norm, num_slots=128, state_dtype=torch.bfloat16, impl="triton")
        state = sum(part.numel() * part.element_size() for s in slots.state for part in s) / 128
        for batch in (1, 16, 128):
            frames = torch.randn(batch, D_MODEL, device="cuda")
            slots.step(frames)
            graph = slots.graphs[slots.bucket(batch)]
            floor = 1e3 * (weights + 2 * batch * state) / bandwidth
            ours = replay_ms(graph)
            authors = AUTHORS.get((name, batch), "-")
            row = {"work": f"{name}, batch {batch}", "floor_ms": floor, "ours_ms": ours}
            rows.append(row | {"authors": authors, "off": off})
            print(
                f"{row['work']:26}{floor:7.2f}{ours:7.2f}{ours / floor:6.2f}  {authors}", flush=True
            )
        del blocks, slots
        torch.cuda.empty_cache()
    print("milliseconds; floor: weights once, states read and written; two layers checked\n")
    return rows
