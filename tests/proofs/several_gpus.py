"""Training on several cards beside one: frames a second, the curve, and a worker that is killed.

    python tests/proofs/several_gpus.py [--count 2] [--device cuda] [--json FILE]

A generator of more than 100 million parameters learns from random codes, as many rows on each card
as on one; then a small one has the same total batch on one and on all, in float32, and its losses
are compared; then one worker of recipes/generate/train.py --smoke is killed, and the run has to go
on by itself. ``--device cpu`` does the same with tiny networks on gloo, where speed means nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audiossm.models.generator import GeneratorConfig
from audiossm.models.recogniser import BackboneConfig
from audiossm.train.losses import send
from audiossm.train.ranks import Ranks
from audiossm.train.recitals import Recital
from audiossm.train.run import Run
from audiossm.train.talker import Talker, compile_layers

ROOT = Path(__file__).parents[2]
FRAMES, UNITS, SPEAKERS, CURVE_STEPS = 512, 128, 8, 20


def wide_config() -> GeneratorConfig:
    """As the generator that ships, but wider."""
    backbone = BackboneConfig(
        d_model=1024, num_layers=9, d_intermediate=2816, dt_min=0.02, dt_max=2.0, max_memory=250.0
    )
    return GeneratorConfig(backbone=backbone)


def draw_recital(config: GeneratorConfig, rows: int, frames: int, seed: int) -> Recital:
    """Make up a batch; rows end at different frames, so that means are over different counts."""
    rng = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=rng)

    codes = draw(config.num_codes, rows, frames, config.num_groups).short()
    ends = (draw(8, rows, frames) == 0).to(torch.int8)
    for row, length in enumerate((draw(frames // 2, rows) + frames // 2).tolist()):
        codes[row, length:], ends[row, length:] = config.num_codes, -1
    return Recital(
        codes,
        draw(len(config.symbols.split()), rows, UNITS, 3).clamp(max=2).to(torch.uint8),
        draw(UNITS, rows, frames).short(),
        draw(40, rows, frames).short(),
        ends,
        torch.zeros(rows, frames),
        draw(SPEAKERS, rows),
    )


class Pupil:
    """A talker that learns from made up recitals, as recipes/generate/train.py has it learn."""

    def __init__(self, ranks: Ranks, config: GeneratorConfig, rows: int, *, halved: bool) -> None:
        torch.manual_seed(0)
        self.ranks, self.config, self.rows, self.halved = ranks, config, rows, halved
        self.talker = Talker(config, SPEAKERS, 0.15, ranks).to(ranks.device)
        self.run = Run(
            self.talker, self.talker, lr=1e-3, weight_decay=0.1, ema=0.999, betas=(0.9, 0.98)
        )
        self.model: nn.Module = self.talker

    def recital(self, step: int, frames: int) -> Recital:
        """Return this process's rows of a step's batch."""
        whole = draw_recital(self.config, self.rows, frames, step)
        return Recital(*(self.ranks.own_rows(part) for part in whole))

    def time(self, recital: Recital, steps: int) -> float:
        """Return the milliseconds of a step."""
        self.learn(recital).item()
        begun = time.monotonic()
        for _ in range(steps):
            loss = self.learn(recital)
        loss.item()
        return 1000 * (time.monotonic() - begun) / steps

    def learn(self, recital: Recital) -> torch.Tensor:
        """Take a step; return the losses' sum, the mean over processes of which is the batch's."""
        worth = torch.tensor(self.ranks.shares(recital.counts(self.config.num_codes)))
        device = self.run.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.halved, cache_enabled=False):
            losses = self.model(recital.to(device)) * send(worth, device)
        self.run.advance(losses.sum(), 1e-3, 1.0)
        return losses.detach().sum()


def follow_curve(ranks: Ranks) -> list[float]:
    """Return the losses of a small network's first steps at one total batch, in float32."""
    torch.set_float32_matmul_precision("highest")
    pupil = Pupil(ranks, GeneratorConfig.tiny(), 8, halved=False)
    pupil.model = ranks.wrap(pupil.talker)
    steps = range(CURVE_STEPS)
    return [ranks.mean(pupil.learn(pupil.recital(step, 64))).item() for step in steps]


def time_steps(ranks: Ranks, way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return how fast a network learns on each process alone, then on all together.

    Its layers are ``eager`` or ``compiled``. While one learns alone, the others wait.
    """
    torch.set_float32_matmul_precision("high")
    on_card = ranks.device.startswith("cuda")
    config = wide_config() if on_card else GeneratorConfig.tiny()
    frames = FRAMES if on_card else 64
    alone = Ranks(device=ranks.device)
    pupil = Pupil(alone, config, args.rows, halved=on_card)
    recital = pupil.recital(0, frames)
    if way == "compiled":
        compile_layers(pupil.talker)
    pupil.time(recital, 3)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in pupil.talker.parameters()),
        "alone_ms": [],
    }
    for number in range(ranks.count):
        ranks.wait()
        taken = pupil.time(recital, args.steps) if ranks.number == number else 0.0
        found["alone_ms"].append(round(ranks.total([taken])[0], 2))
    pupil.ranks = pupil.talker.ranks = ranks
    pupil.model = ranks.wrap(pupil.talker, halved=args.halve_gradients)
    pupil.time(recital, 3)
    ranks.wait()
    found["together_ms"] = round(ranks.total([pupil.time(recital, args.steps)])[0] / ranks.count, 2)
    # the faster one alone is what several are measured by
    fastest = min(found["alone_ms"])
    found["alone_frames_per_s"] = round(1000 * args.rows * frames / fastest)
    found["frames_per_s"] = round(1000 * args.rows * frames * ranks.count / found["together_ms"])
    found["speed_up"] = round(ranks.count * fastest / found["together_ms"], 3)
    found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_card else 0.0
    return found


def work(args: argparse.Namespace) -> None:
    """Do one process's part and let the first one write what was found."""
    ranks = Ranks.join(args.device)
    found: dict[str, Any] = {"processes": ranks.count}
    if ranks.device.startswith("cuda"):
        found["card"] = torch.cuda.get_device_name()
    if not args.no_curve:
        found["losses"] = follow_curve(ranks)
        write(ranks, args.json, found)
    for way in args.ways:
        found[way] = time_steps(ranks, way, args)
        write(ranks, args.json, found)
        if ranks.device.startswith("cuda"):
            torch.compiler.reset()
            torch.cuda.empty_cache()
    ranks.leave()


def write(ranks: Ranks, path: Path, found: dict[str, Any]) -> None:
    """Keep what was found so far."""
    if ranks.leads:
        path.write_text(json.dumps(found, indent=1))


def torchrun(count: int, *options: object) -> list[str]:
    """Return a command that starts processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, "--nproc_per_node", str(count), *map(str, options)]


def find_worker(agent: int, rank: int) -> int | None:
    """Return the process of a rank that torchrun, ``agent``, has started, on Linux."""
    try:
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        for child in children:
            if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
                return int(child)
    except OSError:
        pass  # gone meanwhile
    return None


def kill_worker(
    out: Path, count: int, device: str, options: list[str], *, after: int = 3, patience: float = 600
) -> dict[str, Any]:
    """Kill the last worker of a run of recipes/generate/train.py once it has logged some steps.

    Returns:
        ``rows``, the log's; ``resumed``, the steps that workers went on from; ``ended``, whether
        the run came to its end by itself; ``output``.
    """
    script = ROOT / "recipes" / "generate" / "train.py"
    fixed = ["--smoke", "--device", device, "--workers", "1", "--out", str(out)]
    fixed += ["--save-minutes", "0", *options]
    command = torchrun(count, "--max-restarts", 1, script, *fixed)
    log, killed, deadline = out / "log.jsonl", False, time.monotonic() + patience
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if not killed and log.exists() and len(log.read_text().splitlines()) >= after:
                    worker = find_worker(process.pid, count - 1)
                    if worker is not None:
                        os.kill(worker, signal.SIGKILL)
                        killed = True
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        told.seek(0)
        output = told.read()
    lines = [line for line in output.splitlines() if line.startswith("resumed at step ")]
    return {
        "rows": [json.loads(line) for line in log.read_text().splitlines()],
        "killed": killed,
        "resumed": [int(line.split()[-1]) for line in lines],
        "ended": process.returncode == 0,
        "output": output,
    }


def main() -> int:
    """Run on one card and on several, compare, kill; return 1 if a promise doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2, help="cards (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=int, default=32, help="of 512 frames, on each card")
    parser.add_argument("--steps", type=int, default=20, help="that are timed")
    parser.add_argument("--ways", nargs="*", default=["eager", "compiled"])
    parser.add_argument("--halve-gradients", action="store_true", help="sent as bfloat16")
    parser.add_argument("--no-curve", action="store_true", help="compare no losses")
    parser.add_argument("--no-kill", action="store_true", help="kill no worker")
    parser.add_argument("--only-kill", action="store_true", help="compare nothing")
    parser.add_argument("--kill-steps", type=int, default=400, help="of the run that is hit")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args)
        return 0
    found: dict[str, Any] = {"device": args.device}
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        if not args.only_kill:
            fine = compare(args, Path(folder), found)
            keep(args.json, found)
        if not args.no_kill:
            short = ["--set", "train.log_every=1", "--set", f"train.steps={args.kill_steps}"]
            story = kill_worker(Path(folder) / "killed", args.count, args.device, short)
            found["kill"] = {name: story[name] for name in ("killed", "resumed", "ended")}
            if not (story["killed"] and story["ended"] and story["resumed"]):
                fine = False
                print(story["output"], file=sys.stderr)
            keep(args.json, found)
    told = {name: found[name] for name in ("furthest_losses", "kill") if name in found}
    several = found.get(str(args.count), {})
    told["speed_up"] = {way: several[way]["speed_up"] for way in args.ways if way in several}
    print(json.dumps(told))
    return 0 if fine else 1


def compare(args: argparse.Namespace, folder: Path, found: dict[str, Any]) -> bool:
    """Run on one card and on several; tell whether the losses are the same."""
    for count in (args.count,) if args.no_curve else (1, args.count):
        path = folder / f"{count}.json"
        given = ["--device", args.device, "--rows", args.rows, "--steps", args.steps]
        given += ["--work", "--json", path, "--ways", *(args.ways if count > 1 else [])]
        given += ["--halve-gradients"] if args.halve_gradients else []
        given += ["--no-curve"] if args.no_curve else []
        subprocess.run(torchrun(count, __file__, *given), check=True)
        found[str(count)] = json.loads(path.read_text())
        print(json.dumps(found[str(count)]), flush=True)
    if args.no_curve:
        return True
    losses = zip(found["1"]["losses"], found[str(args.count)]["losses"], strict=True)
    found["furthest_losses"] = max(abs(a - b) for a, b in losses)
    fine: bool = found["furthest_losses"] < 1e-4
    return fine


def keep(path: Path | None, found: dict[str, Any]) -> None:
    """Write what was found so far."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
