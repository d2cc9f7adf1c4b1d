"""Make a table and a picture of what train.py found, as it does itself when it is done.

    python recipes/periodicity/make_table.py DIR
    python recipes/periodicity/make_table.py DIR DIR DIR --out OUT         # seeds of several runs
    python recipes/periodicity/make_table.py recipes/periodicity/results.json

OUT/table.json has best, median and worst of the seeds of each figure, table.md the same to read,
picture.png the same for the eye. Of such a .json file the picture is drawn anew, beside it.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from audiossm.errors import DependencyError
from audiossm.pictures import load_pyplot
from audiossm.train.journal import read_rows
from audiossm_apps.recipe import run_recipe

ARMS = ("published", "still", "fixed", "bank25", "bank50", "wide", "lstm")
# what the paper has for the published layer, without rotation, and for Mamba-2
PAPER = {
    "parity": (1.0, 0.0227, 0.009),
    "sums": (0.9851, 0.0149, 0.4781),
    "brackets": (0.8775, 0.0072, 0.0088),
}
# of each task the figures that are shown, and which way is better
SHOWN = {
    "parity": ("scaled_159", "scaled_256"),
    "sums": ("scaled_159", "scaled_255"),
    "brackets": ("scaled_159", "scaled_256"),
    "tones": ("rpa_256", "rpa_768"),
    "coded-tones": ("rpa_128", "rpa_384"),
    "loops": ("nmse_1", "nmse_5", "nmse_20", "drift_20"),
    "coded-loops": ("nmse_1", "nmse_5", "nmse_20"),
    "beats": ("mod2_128", "mod3_128", "mod4_128", "mod8_128", "mod4_512"),
    "coded-beats": ("mod2_128", "mod3_128", "mod4_128", "mod8_128", "mod4_512"),
    "speech": ("rpa", "voicing"),
}
LOWER = ("nmse", "drift")
NO_SPEECH = "speech (it needs --speech: a file that make_pitch.py made)"
UNLIKE = "* hatched: other steps or settings than its task's first arm"
NEAR = 1.25  # steps of arms that are compared differ by less than this factor
# what the axis of a figure says, by how the figure's name begins, and where it ends
AXES = {
    "scaled": ("accuracy, scaled", (-0.15, 1.05)),
    "rpa": ("share right", (0, 1.05)),
    "mod": ("share counted right", (0, 1.05)),
    "nmse": ("error over variance (lower is better)", (0, 2)),
}
Arms = dict[str, dict[str, dict[str, Any]]]  # figures and "seeds" of each arm
Table = dict[str, Arms]


def find_differences(row: dict, other: dict, but: tuple[str, ...] = ()) -> str:
    """Return in what two rows were learnt differently, of what both tell; or nothing."""
    mine, theirs = ({"steps": each["of"]} | each.get("settings", {}) for each in (row, other))
    names = [name for name in mine if name in theirs and name not in but]
    unlike = [name for name in names if mine[name] != theirs[name]]
    return ", ".join(f"{name} {mine[name]}, not {theirs[name]}" for name in unlike)


def merge_seeds(found: list[tuple[Path, dict]]) -> list[dict]:
    """Return one row for each seed of an arm, of rows and the files they are from.

    Raises:
        SystemExit: seeds were learnt in different ways, or a seed has two results.
    """
    kept: dict[int, tuple[Path, dict]] = {}
    for path, row in found:
        where, first = found[0]
        if told := find_differences(first, row):
            raise SystemExit(f"{where} and {path}: seeds {first['seed']} and {row['seed']}: {told}")
        where, same = kept.setdefault(row["seed"], (path, row))
        names = [name for name in row if name not in ("seconds", "settings")]
        if unlike := [name for name in names if row[name] != same.get(name)]:
            told = f"{unlike[0]} {same.get(unlike[0])} and {row[unlike[0]]}"
            raise SystemExit(f"{where} and {path}: seed {row['seed']} has two results: {told}")
    return [kept[seed][1] for seed in sorted(kept)]


def list_figures(task: str, row: dict) -> list[str]:
    """Return the figures of a row that are shown: of other lengths, if it learned from others."""
    names = [*SHOWN[task]]
    if not row.keys() >= {*names}:
        kinds = tuple(name.partition("_")[0] for name in names)
        names = [name for name in row if name.startswith(kinds)][: len(names)]
    return names


def collect(folders: list[Path]) -> Table:
    """Return best, median and worst of each figure of the seeds of all folders, by task and arm.

    Raises:
        SystemExit: there is no row in a folder, or seeds can't be merged.
    """
    rows: dict[str, dict[str, list[tuple[Path, dict]]]] = {}
    for folder in folders:
        paths = sorted(folder.glob("*-*.jsonl"))
        found = [(path, row) for path in paths for row in read_rows(path)]
        if not found:
            raise SystemExit(f"{folder}: no TASK-ARM.jsonl of train.py is there")
        for path, row in found:
            rows.setdefault(row["task"], {}).setdefault(row["arm"], []).append((path, row))
    table: Table = {}
    for task, arms in rows.items():
        merged = {arm: merge_seeds(found) for arm, found in arms.items()}
        base = merged[list_arms(merged)[0]][0]
        for arm, seeds in merged.items():
            steps = [row["steps"] for row in seeds]
            told = {"number": len(seeds), "steps": min(steps), "of": seeds[0]["of"]}
            if max(steps) > min(steps):
                told["most_steps"] = max(steps)
            if other := find_differences(seeds[0], base, but=("steps", "arm")):
                told["other"] = other
            cell = {"seeds": told}
            for name in list_figures(task, seeds[0]):
                values = sorted(
                    (row[name] for row in seeds if name in row),
                    reverse=not name.startswith(LOWER),
                )
                cell[name] = {"best": values[0], "median": median(values), "worst": values[-1]}
            table.setdefault(task, {})[arm] = cell
    return table


def list_arms(arms: Iterable[str]) -> list[str]:
    """Return arms in the order that they are shown in; others than ours come last."""
    return sorted(arms, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))


def tell_steps(seeds: dict) -> str:
    """Return how many steps an arm's seeds did: 1000, or 980 to 1000."""
    most = seeds.get("most_steps", seeds["steps"])
    return f"{seeds['steps']}" + f" to {most}" * (most > seeds["steps"])


def tell_unlike(arms: Arms, arm: str) -> str:
    """Return why an arm of a task isn't to be compared with the first one, or nothing."""
    first = list_arms(arms)[0]
    mine, theirs = arms[arm]["seeds"], arms[first]["seeds"]
    told = [mine["other"]] if "other" in mine else []
    if not 1 / NEAR <= mine["steps"] / theirs["steps"] <= NEAR:
        told.append(f"{tell_steps(mine)} steps, not {first}'s {tell_steps(theirs)}")
    return "; ".join(told)


def name_figures(arms: Arms) -> list[str]:
    """Return the figures that arms of a task have."""
    return list(dict.fromkeys(name for cell in arms.values() for name in cell if name != "seeds"))


def read_table(path: Path) -> Table:
    """Return what ``collect`` did and a file keeps.

    Raises:
        SystemExit: it isn't such a file.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if any(task in table for task in SHOWN):
            return table
    except OSError as exc:
        raise SystemExit(f"{path}: {exc.strerror}") from exc
    except (ValueError, TypeError):
        pass  # the same is wrong with it
    raise SystemExit(f"{path}: expected a table.json of this script")


def write_markdown(table: Table) -> str:
    """Return a row for each task and figure and a column for each arm: median (worst to best)."""
    arms = list_arms({arm for cells in table.values() for arm in cells})
    lines = [f"| task | figure | {' | '.join(arms)} |", "|---|---|" + "---|" * len(arms)]
    notes = []
    for task in (task for task in SHOWN if task in table):
        unlike = {arm: tell_unlike(table[task], arm) for arm in table[task]}
        notes += [f"- {task}, {arm}: {unlike[arm]}" for arm in list_arms(unlike) if unlike[arm]]
        for name in name_figures(table[task]):
            cells = []
            for arm in arms:
                cell = table[task].get(arm, {}).get(name)
                told = ""
                if cell:
                    worst = f"{cell['worst']:.3g} to " if "worst" in cell else ""
                    told = f"{cell['median']:.3g} ({worst}{cell['best']:.3g})"
                    told += " \\*" * bool(unlike[arm])
                cells.append(told)
            lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
        seeds = [table[task][arm]["seeds"] if arm in table[task] else None for arm in arms]
        told = [f"{tell_steps(cell)} ({cell['number']})" if cell else "" for cell in seeds]
        lines.append(f"| {task} | steps (seeds) | {' | '.join(told)} |")
    lines += ["", "Medians of the seeds (worst to best, or the best alone where no more was kept)."]
    if notes:
        lines += ["", "\\* had other steps or settings than its task's first arm:", "", *notes]
    if missing := [task for task in SHOWN if task not in table]:
        lines += ["", f"Without rows: {', '.join(missing).replace('speech', NO_SPEECH)}."]
    return "\n".join(lines) + "\n"


def draw(table: Table) -> Any:
    """Return a figure with a panel for each task: medians and steps, and dashed what the paper has.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    plt = load_pyplot()
    tasks = [task for task in SHOWN if task in table]
    columns = min(len(tasks), 4)
    count = -(-len(tasks) // columns)
    size = (max(2.6 * columns + 0.4, 5.6), 2.5 * count + 0.6)  # a legend needs some width
    figure, axes = plt.subplots(count, columns, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(tasks) :]:
        panel.set_visible(False)
    shown = list_arms({arm for task in tasks for arm in table[task]})
    colours = {
        arm: f"C{ARMS.index(arm) if arm in ARMS else 7 + i % 3}" for i, arm in enumerate(shown)
    }
    handles: dict = {}
    for panel, task in zip(axes.flat, tasks, strict=False):
        arms = list_arms(table[task])
        names = [name for name in name_figures(table[task]) if not name.startswith("drift")]
        for i, arm in enumerate(arms):
            cells, colour = table[task][arm], colours[arm]
            unlike = bool(tell_unlike(table[task], arm))
            found = [(at, cells[name]["median"]) for at, name in enumerate(names) if name in cells]
            look = {"hatch": "////", "fill": False} if unlike else {"color": colour}
            panel.bar(
                [at + (i - len(arms) / 2 + 0.5) * 0.8 / len(arms) for at, _ in found],
                [x for _, x in found],
                0.8 / len(arms),
                edgecolor=colour,
                **look,
            )
            handles[arm] = plt.Rectangle((0, 0), 1, 1, color=colour)
            panel.text(
                (i + 0.5) / len(arms),
                1.03,
                tell_steps(cells["seeds"]).replace(" to ", "-") + "*" * unlike,
                transform=panel.transAxes,
                ha="center",
                fontsize=7,
                color=colour,
                weight="bold",
            )
            if unlike:
                handles[UNLIKE] = plt.Rectangle((0, 0), 1, 1, hatch="////", fill=False, ec="0.3")
        # a line for each part of a name: names as wide as "mod2_128" would overlap
        panel.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
        panel.set_xlim(-0.6, len(names) - 0.4)
        panel.tick_params(axis="y", labelsize=8)
        panel.axhline(0, color="k", lw=0.8)
        if task in PAPER:
            handles["paper"] = panel.axhline(PAPER[task][0], color="k", lw=0.8, ls="--")
        for start, (label, limits) in AXES.items():
            if names and names[0].startswith(start):
                panel.set_ylabel(label, fontsize=8)
                panel.set_ylim(*limits)
        panel.set_title(task, fontsize=9, pad=16)
    told = {"paper": "the paper's, published"}
    labels = [label for label in (*shown, "paper", UNLIKE) if label in handles]
    figure.legend(
        [handles[label] for label in labels],
        [told.get(label, label) for label in labels],
        title="medians of the seeds; above each panel the steps of each arm",
        title_fontsize=9,
        fontsize=9,
        ncols=max(columns, 2),
        loc="outside lower center",
    )
    return figure


def save(table: Table, folder: Path) -> str:
    """Write a table and its picture into a folder, and return what to print of them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = write_markdown(table)
    (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    (folder / "table.md").write_text(text)
    return text + save_picture(table, folder)


def save_picture(table: Table, folder: Path) -> str:
    """Write the picture of a table into a folder, and return a line if that can't be done."""
    try:
        draw(table).savefig(folder / "picture.png", dpi=150)
    except DependencyError as exc:
        return f"no picture.png: {exc}\n"
    return ""


def main() -> None:
    """Read, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", type=Path, nargs="+", metavar="DIR|FILE.json")
    parser.add_argument("--out", type=Path, help="folder; by default that of the one place")
    args = parser.parse_args()
    first, *more = args.places
    saved = [place for place in args.places if place.suffix == ".json"]
    if saved and more:
        parser.error(f"{saved[0]}: a table that is kept is drawn alone; only folders are merged")
    if more and args.out is None:
        parser.error("several folders need --out: a folder for what they give together")
    if saved:
        table = read_table(first)
        folder = args.out or first.parent
        folder.mkdir(parents=True, exist_ok=True)
        text = write_markdown(table) + save_picture(table, folder)
    else:
        text = save(collect(args.places), args.out or first)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
