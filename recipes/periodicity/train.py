"""What complex states buy: train small networks with and without turning states, on ten tasks.

    python recipes/periodicity/train.py --out DIR [--tasks parity beats] [--arms published still]
    python recipes/periodicity/train.py --smoke --out DIR      # a minute on a CPU

DIR/TASK-ARM.jsonl gets a line for each seed; seeds that stand there already are left out, and a
line that a kill broke off counts for none. DIR/TASK-ARM-SEED.safetensors has what was learnt.
At the end table.md, table.json and picture.png are made of all that stands in DIR.
README.md has the numbers.
"""

import argparse
import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from make_table import NO_SPEECH, collect, find_differences, save
from safetensors.torch import save_file
from tasks import Rows, Setting, Task, make_task
from torch import Tensor, nn
from torch.func import functional_call

from audiossm.codec import LoadedCodec
from audiossm.config import change_value, from_dict, load_toml
from audiossm.errors import AudioSSMError, ConfigError
from audiossm.models import choose_device
from audiossm.nn import Block, Mamba3Config, RMSNorm
from audiossm.train.journal import append_row, read_rows
from audiossm_apps.recipe import StepBar, run_recipe

HERE = Path(__file__).parent
SMOKE_TASKS = ["parity", "beats", "loops", "coded-tones"]
SMOKE_SIZES = {"rows": 8, "frames": 40, "steps": 40, "pool": 32, "fills": 2, "test_rows": 16}
SMOKE_TRAIN = {"warmup": 10}
SMOKE_LAYER = {"d_model": 16, "d_state": 8, "head_dim": 8}
EVERY = 20  # steps between two looks at the clock
LINES = 20  # of losses, while an arm learns


class LstmLayer(nn.Module):
    """An LSTM with the residual stream around it that a block has."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm, self.lstm = RMSNorm(d_model), nn.LSTM(d_model, 2 * d_model, batch_first=True)
        self.out = nn.Linear(2 * d_model, d_model)

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        zeros = self.out.weight.new_zeros(1, batch, self.lstm.hidden_size)
        return zeros, zeros

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = self.lstm(self.norm(x), state)
        return x + self.out(y), state


class Network(nn.Module):
    """Symbols or features in, a few layers, and a linear map to what is asked for.

    While it learns, normal noise is added behind each layer: what is to be told apart, and kept,
    is then far apart.
    """

    def __init__(self, task: Task, config: Mamba3Config, num_layers: int, lstm: bool) -> None:
        super().__init__()
        width = config.d_model
        self.symbols, self.noise = task.symbols, task.hp["noise"]
        self.embed = nn.Linear(task.symbols or task.channels, width)
        self.layers = nn.ModuleList(
            LstmLayer(width) if lstm else Block(config, 2 * width) for _ in range(num_layers)
        )
        self.norm, self.head = RMSNorm(width), nn.Linear(width, task.outputs)

    def init_state(self, batch: int):
        return [layer.init_state(batch) for layer in self.layers]

    def step(self, x: Tensor, state):
        if self.symbols:
            x = (x.unsqueeze(-1) == torch.arange(self.symbols, device=x.device)).float()
        x, after = self.embed(x), []
        for layer, before in zip(self.layers, state, strict=True):
            x, new = layer.step(x, before)
            if self.noise and torch.is_grad_enabled():
                x = x + self.noise * torch.randn_like(x)
            after.append(new)
        return self.head(self.norm(x)), after

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.init_state(len(x)))[0]


class Supply:
    """Draws rows of a task ahead, in a thread, where that is the processor's work alone."""

    def __init__(self, task: Task, rows: int, frames: int) -> None:
        self.draw = partial(task.draw, rows, frames)
        self.thread = ThreadPoolExecutor(1)
        self.coming = self.thread.submit(self.draw) if task.drawn_aside else None

    def take(self) -> Rows:
        """Return the next ones."""
        if self.coming is None:
            return self.draw()
        rows = self.coming.result()
        self.coming = self.thread.submit(self.draw)
        return rows

    def close(self) -> None:
        """Let the thread end."""
        self.thread.shutdown(cancel_futures=True)


class Trainer:
    """One task and arm with all of its seeds at once: each weight has one more axis, the seeds.

    A step is picking rows from a pool and learning from them. On a card the whole step is one CUDA
    graph: such small networks would wait for their launches.
    """

    def __init__(self, task: Task, make, seeds: list[int], hp: dict, device) -> None:
        self.task, self.seeds, self.hp = task, seeds, hp
        networks = []
        for seed in seeds:
            torch.manual_seed(seed)
            networks.append(make().to(device))
        self.network = networks[0]  # what a seed's weights are put into
        self.weights = {
            name: nn.Parameter(torch.stack([dict(n.named_parameters())[name] for n in networks]))
            for name, _ in self.network.named_parameters()
        }
        self.start = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.count = torch.zeros((), device=device)
        self.total = torch.zeros(len(seeds), device=device)
        self.lr = torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(),
            self.lr,
            (0.9, 0.98),
            weight_decay=hp["weight_decay"],
            capturable=device.type == "cuda",
        )
        self.pool = task.draw(hp["pool"], hp["frames"])
        self.losses = self.find_losses

    def find_losses(self, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """Return each seed's loss, (seeds,), of rows (seeds, rows, frames, ...)."""

        def one(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            def network(x: Tensor) -> Tensor:
                return functional_call(self.network, weights, (x,))

            return self.task.loss(network, x, y, asked)

        if len(self.seeds) == 1:  # what an LSTM needs
            weights = {name: weight[0] for name, weight in self.weights.items()}
            return one(weights, x[0], y[0]).unsqueeze(0)
        found: Tensor = torch.vmap(one, randomness="different")(self.weights, x, y)
        return found

    def advance(self) -> None:
        """Do one step; everything it depends on is a tensor."""
        hp, device = self.hp, self.count.device
        progress = self.count / hp["steps"]
        cosine = 0.5 + 0.5 * (math.pi * progress.clamp(max=1.0)).cos()
        warm = ((self.count + 1) / hp["warmup"]).clamp(max=1.0)
        self.lr.copy_(hp["lr"] * torch.minimum(warm, cosine + 0.01))
        # a curriculum: short rows first, or of long ones their beginning
        share = (hp["first"] / hp["frames"] + 2 * progress).clamp(max=1.0)
        least = hp["outgrown"] * (2 * progress - 1).clamp(min=0.0, max=1.0)
        drawn = torch.rand(len(self.seeds), hp["rows"], device=device)
        places = (least + drawn * (share - least)) * len(self.pool.x)
        rows = places.long().clamp(max=len(self.pool.x) - 1)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.losses(self.pool.x[rows], self.pool.y[rows], share * hp["frames"])
        losses.sum().backward()
        gradients = [weight.grad for weight in self.weights.values()]
        norms = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).norm(dim=1)
        scale = (hp["grad_clip"] / norms).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
        self.optimizer.step()
        self.total += losses.detach()
        self.count += 1

    def capture(self) -> torch.cuda.CUDAGraph:
        """Return the graph of a step; afterwards the weights are as they were."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.advance()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.advance()
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.start[name])
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
        self.count.zero_()
        self.total.zero_()
        return graph

    def run(self, minutes: float, captured: bool, path: Path) -> list[dict]:
        """Train, write each seed's weights to ``PATH-SEED.safetensors``, and return its row.

        The schedule ends with the minutes at the latest, but it has half of them at least, however
        long a compiler takes.
        """
        end = time.monotonic() + 60 * minutes
        graph = self.capture() if captured else None
        began = time.monotonic()  # a compiler may have taken a minute
        lasting = max(end - began, 30 * minutes)
        losses, steps, done, place, refilled = [], self.hp["steps"], 0, 0, 0
        bar, told = StepBar(steps, 0), 0
        supply = Supply(self.task, *self.pool.y.shape[:2])
        while place < steps:
            late = int((time.monotonic() - began) / lasting * steps)
            if late > place:  # slower than asked for: the schedule goes on with the clock
                place = late
                self.count.fill_(place)
            if place * self.hp["fills"] // steps > refilled:
                refilled = place * self.hp["fills"] // steps
                for old, new in zip(self.pool, supply.take(), strict=True):
                    old.copy_(new)
            for _ in range(EVERY):
                if graph is None:
                    self.advance()
                else:
                    graph.replay()
            done, place = done + EVERY, place + EVERY
            losses.append([round(total / EVERY, 4) for total in self.total.tolist()])
            self.total.zero_()
            bar.show(place, dict(zip(map(str, self.seeds), losses[-1], strict=True)))
            if place * LINES // steps > told:
                told = place * LINES // steps
                spent = round(time.monotonic() - began, 1)
                line = {"step": place, "done": done, "of": steps, "seconds": spent}
                print(json.dumps(line | {"losses": losses[-1]}), flush=True)
        bar.close(), supply.close()
        seconds, thin = round(time.monotonic() - began, 1), max(len(losses) // 20, 1)
        rows = []
        for i, seed in enumerate(self.seeds):
            row = {"seed": seed, "steps": done, "of": steps, "seconds": seconds}
            with torch.no_grad():
                for name, weight in self.network.named_parameters():
                    weight.copy_(self.weights[name][i])
                save_file(self.network.state_dict(), f"{path}-{seed}.safetensors")
                scores = self.task.score(self.network, self.hp["frames"], self.hp["test_rows"])
            row |= {name: round(value, 4) for name, value in scores.items()}
            rows.append(row | {"losses": [some[i] for some in losses[thin - 1 :: thin]]})
        return rows


def main() -> None:
    """Read the command line, and refuse in one line what can't be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--tasks", nargs="+", help="of config.toml; all by default")
    parser.add_argument("--arms", nargs="+", help="of config.toml, or lstm; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, help="0, 1 and 2 by default")
    parser.add_argument("--codec", help="of the tasks on codec frames: a name or a folder")
    parser.add_argument("--speech", type=Path, help="what make_pitch.py made, for that task")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="of learning a task and arm")
    parser.add_argument("--compile", action="store_true", help="compile the network, too")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, four tasks, two arms")
    args = parser.parse_args()
    try:
        train(args, parser)
    except AudioSSMError as exc:
        sys.exit(f"train.py: error: {exc}")


def train(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Go through tasks, arms and seeds."""
    args.out.mkdir(parents=True, exist_ok=True)

    table = load_toml(args.config)
    if args.smoke:
        for name, task in table["tasks"].items():
            table["tasks"][name] = task | SMOKE_SIZES
        table["layer"] |= SMOKE_LAYER
        table["train"] |= SMOKE_TRAIN
    for change in args.set:
        change_value(table, change)
    tasks, arms, hp = table["tasks"], table["arms"], table["train"]
    chosen = args.tasks or (SMOKE_TASKS if args.smoke else [*tasks])
    others = args.arms or (["published", "still"] if args.smoke else [*arms, "lstm"])
    wanted = args.seeds or ([0] if args.smoke else [0, 1, 2])
    if strange := [name for name in chosen if name not in tasks]:
        parser.error(f"{strange[0]}: there are tasks {[*tasks]}")
    if strange := [name for name in others if name not in arms and name != "lstm"]:
        parser.error(f"{strange[0]}: there are arms {[*arms, 'lstm']}")
    if args.speech is None and "speech" in chosen:
        if args.tasks:
            parser.error("the task 'speech' needs --speech: a file that make_pitch.py made")
        chosen = [name for name in chosen if name != "speech"]
        print(f"left out: {NO_SPEECH}", file=sys.stderr, flush=True)
    torch.set_float32_matmul_precision("highest")  # states are to be kept exactly
    device = choose_device(args.device)
    codec = None
    if any(name.startswith("coded") for name in chosen):
        codec = LoadedCodec.load(args.codec, device=device, backend="torch")
    setting = Setting(device, codec, args.speech)

    for name in chosen:
        for arm in others:
            path = args.out / f"{name}-{arm}.jsonl"
            layer, changed = table["layer"] | tasks[name].get("layer", {}), arms.get(arm, {})
            settings = {"arm": changed} | {f"layer.{key}": layer[key] for key in layer}
            own = hp | tasks[name]
            settings |= {key: own[key] for key in own if key not in ("layer", "steps")}
            done = read_rows(path) if path.exists() else []
            for row in done:
                if told := find_differences(row, {"of": own["steps"], "settings": settings}):
                    raise ConfigError(f"{path}: seed {row['seed']} has {told}: take another --out")
            seeds = [seed for seed in wanted if seed not in [row["seed"] for row in done]]
            if not seeds:
                continue
            config = from_dict(Mamba3Config, layer | changed, "layer")
            layers, lstm = tasks[name]["num_layers"], arm == "lstm"
            task = make_task(name, setting, own)

            def make(task=task, config=config, layers=layers, lstm=lstm) -> Network:
                return Network(task, config, layers, lstm)

            for some in [[seed] for seed in seeds] if lstm else [seeds]:
                trainer = Trainer(task, make, some, own, device)
                if args.compile:
                    trainer.losses = torch.compile(trainer.losses, dynamic=False)
                size = sum(p.numel() for p in trainer.network.parameters())
                captured = device.type == "cuda" and not lstm
                for found in trainer.run(args.minutes, captured, path.with_suffix("")):
                    row = {"task": name, "arm": arm, "parameters": size} | found
                    row["settings"] = settings
                    append_row(path, row)
                    print(json.dumps(row), flush=True)
    print(save(collect([args.out]), args.out), end="")


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
