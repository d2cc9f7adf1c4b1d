"""Make a table and a picture of what train.py found.

    python recipes/periodicity/make_table.py DIR
    python recipes/periodicity/make_table.py recipes/periodicity/results.json

DIR/table.json has best and median of the seeds of each figure, table.md the figures that README.md
shows, picture.png the same for the eye. Of such a .json file the picture is drawn anew, beside it.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from audiossm.errors import DependencyError
from audiossm.pictures import load_pyplot
from audiossm.train.journal import read_rows

ARMS = ("published", "still", "fixed", "bank25", "bank50", "wide", "lstm")
# what the paper has for the published layer, without rotation, and for Mamba-2
PAPER = {
    "parity": (1.0, 0.0227, 0.009),
    "sums": (0.9851, 0.0149, 0.4781),
    "brackets": (0.8775, 0.0072, 0.0088),
}
# of each task the figures that are shown, and which way is better
SHOWN = {
    "parity": ("scaled_256",),
    "sums": ("scaled_255",),
    "brackets": ("scaled_256",),
    "tones": ("rpa_256", "rpa_768"),
    "coded-tones": ("rpa_128", "rpa_384"),
    "loops": ("nmse_1", "nmse_5", "nmse_20", "drift_20"),
    "coded-loops": ("nmse_1", "nmse_5", "nmse_20"),
    "beats": ("mod2_128", "mod3_128", "mod4_128", "mod8_128", "mod4_512"),
    "coded-beats": ("mod2_128", "mod3_128", "mod4_128", "mod8_128", "mod4_512"),
    "speech": ("rpa", "voicing"),
}
LOWER = ("nmse", "drift")
# what the axis of a figure says, by how the figure's name begins, and where it ends
AXES = {
    "scaled": ("accuracy, scaled", (-0.15, 1.05)),
    "rpa": ("share right", (0, 1.05)),
    "mod": ("share counted right", (0, 1.05)),
    "nmse": ("error over variance (lower is better)", (0, 2)),
}


def collect(folder: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return best and median of each figure, by task and arm.

    Raises:
        SystemExit: there is no row in the folder.
    """
    rows: dict[str, dict[str, list[dict]]] = {}
    for path in sorted(folder.glob("*-*.jsonl")):
        for row in read_rows(path):
            rows.setdefault(row["task"], {}).setdefault(row["arm"], []).append(row)
    if not rows:
        raise SystemExit(f"{folder}: no TASK-ARM.jsonl of train.py is there")
    table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for task, arms in rows.items():
        for arm, found in arms.items():
            cell = {
                "seeds": {"number": len(found), "steps": found[0]["steps"], "of": found[0]["of"]}
            }
            for name in SHOWN[task]:
                values = [row[name] for row in found if name in row]
                if values:
                    best = min(values) if name.startswith(LOWER) else max(values)
                    cell[name] = {"best": best, "median": median(values)}
            table.setdefault(task, {})[arm] = cell
    return table


def read_table(path: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
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


def write_markdown(table: dict) -> str:
    """Return a row for each task and figure and a column for each arm: median (best)."""
    arms = [arm for arm in ARMS if any(arm in cells for cells in table.values())]
    lines = [f"| task | figure | {' | '.join(arms)} |", "|---|---|" + "---|" * len(arms)]
    for task in SHOWN:
        for name in SHOWN[task]:
            cells = []
            for arm in arms:
                cell = table.get(task, {}).get(arm, {}).get(name)
                cells.append(f"{cell['median']:.3g} ({cell['best']:.3g})" if cell else "")
            if any(cells):
                lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(table: dict) -> Any:
    """Return a figure with a panel for each task: medians, and dashed what the paper has.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    plt = load_pyplot()
    tasks = [task for task in SHOWN if task in table]
    columns = min(len(tasks), 5)
    count = -(-len(tasks) // columns)
    figure, axes = plt.subplots(
        count, columns, figsize=(3.2 * columns, 3 * count), squeeze=False, layout="constrained"
    )
    for panel in axes.flat[len(tasks) :]:
        panel.set_visible(False)
    handles: dict = {}
    for panel, task in zip(axes.flat, tasks, strict=False):
        arms = [arm for arm in ARMS if arm in table[task]]
        names = [name for name in SHOWN[task] if not name.startswith("drift")]
        for i, arm in enumerate(arms):
            cells = table[task][arm]
            found = [(at, cells[name]["median"]) for at, name in enumerate(names) if name in cells]
            places = [at + (i - len(arms) / 2 + 0.5) * 0.8 / len(arms) for at, _ in found]
            bars = panel.bar(
                places, [x for _, x in found], 0.8 / len(arms), color=f"C{ARMS.index(arm)}"
            )
            handles.setdefault(arm, bars)
        # a line for each part of a name: names as wide as "mod2_128" would overlap
        panel.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
        panel.set_xlim(-0.6, len(names) - 0.4)
        panel.axhline(0, color="k", lw=0.8)
        if task in PAPER:
            handles["paper"] = panel.axhline(PAPER[task][0], color="k", lw=0.8, ls="--")
        axis = next(axis for start, axis in AXES.items() if names[0].startswith(start))
        panel.set_ylabel(axis[0], fontsize=8)
        panel.set_ylim(*axis[1])
        panel.set_title(task, fontsize=9)
    labels = [label for label in (*ARMS, "paper") if label in handles]
    figure.legend(
        [handles[label] for label in labels],
        [label if label in ARMS else "the paper's, published" for label in labels],
        ncols=len(labels),
        loc="outside lower center",
    )
    return figure


def main() -> None:
    """Read, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", type=Path, metavar="DIR|FILE.json")
    args = parser.parse_args()
    saved = args.place.suffix == ".json"
    folder = args.place.parent if saved else args.place
    table = read_table(args.place) if saved else collect(folder)
    text = write_markdown(table)
    if not saved:
        (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n")
        (folder / "table.md").write_text(text)
    print(text, end="")
    try:
        draw(table).savefig(folder / "picture.png", dpi=110)
    except DependencyError as exc:
        print(f"no picture.png: {exc}")


if __name__ == "__main__":
    main()
