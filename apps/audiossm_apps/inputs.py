"""Which recordings a command line means: files, folders and patterns, and where results go."""

import glob
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiossm.errors import OutputError
from audiossm.suffixes import MEDIA, PLAIN

__all__ = ["Input", "find_inputs", "name_targets"]


@dataclass(frozen=True)
class Input:
    """A recording to transcribe.

    Attributes:
        source: its path, or ``-``.
        place: its path in the folder that was searched, or its name alone.
        problem: why it can't be transcribed, if that is known already.
    """

    source: str
    place: Path
    problem: str | None = None


def find_inputs(names: Sequence[str], *, with_raw: bool = False) -> tuple[list[Input], list[str]]:
    """Look into folders, with all that is below them, and expand patterns that the shell left.

    A file that is named is taken whatever it is called; one that is found, if its suffix is that of
    audio that can be read here. Hidden files and folders are left out, and repetitions, too. The
    order is that of the names; within a folder, the alphabet's.

    Args:
        names: paths, patterns with ``*``, ``?``, ``[...]`` and ``**``, or ``-``.
        with_raw: ``.raw`` files are audio.

    Returns:
        the recordings, and lines that say what was left out because an extra is missing.
    """
    needy = frozenset() if _has_av() else MEDIA
    suffixes = PLAIN | (MEDIA - needy) | ({".raw"} if with_raw else set())
    left_out: list[Path] = []

    def search(folder: Path, root: Path) -> Iterator[Input]:
        for place, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                path = Path(place, name)
                if name.startswith("."):
                    continue
                if path.suffix.lower() in suffixes:
                    yield Input(str(path), path.relative_to(root))
                elif path.suffix.lower() in needy:
                    left_out.append(path)

    def expand(name: str) -> Iterator[Input]:
        path = Path(name)
        if path.is_dir():
            found = list(search(path, path))
            yield from found or [Input(name, Path(path.name), "there is no audio in this folder")]
        elif name != "-" and glob.has_magic(name) and not os.path.lexists(name):
            root = Path(*_fixed_parts(path))
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            known = [match for match in matches if match.suffix.lower() in suffixes]
            for match in known or matches:
                if match.is_dir():
                    yield from search(match, root)
                else:
                    yield Input(str(match), match.relative_to(root))
            if not matches:
                yield Input(name, Path(path.name))  # opening it says that there is no such file
        else:
            yield Input(name, Path(path.name))

    inputs: dict[str, Input] = {}
    for name in names:
        for item in expand(name):
            inputs.setdefault("-" if item.source == "-" else os.path.realpath(item.source), item)
    return list(inputs.values()), _tell_left_out(left_out)


def name_targets(
    inputs: Sequence[Input], kind: str, output_dir: str | None
) -> list[tuple[Input, Path]]:
    """Give each recording a file for its result: beside it, or in a folder that mirrors its own.

    Args:
        inputs: recordings, none of them ``-``.
        kind: the format, which is the suffix.
        output_dir: the folder; None: each result goes beside its recording.

    Raises:
        OutputError: two results would go to one file, or one over a recording.
    """
    targets: list[tuple[Input, Path]] = []
    taken = {os.path.normcase(os.path.realpath(item.source)): item for item in inputs}
    sources = dict(taken)
    for item in inputs:
        place = Path(item.source) if output_dir is None else Path(output_dir, item.place)
        target = place.with_name(place.name + f".{kind}")
        if place.suffix:
            target = place.with_suffix(f".{kind}")
        key = os.path.normcase(os.path.realpath(target))
        if key in sources:
            raise OutputError(f"{target}: is an input, which the result would overwrite")
        if (other := taken.setdefault(key, item)) is not item:
            raise OutputError(
                f"{other.source} and {item.source} would both be written to {target}: transcribe "
                "them in two runs, into two folders (--output-dir)"
            )
        targets.append((item, target))
    return targets


def _has_av() -> bool:
    """Tell whether PyAV is installed, without loading torch for it, as our reader would."""
    try:
        return importlib.util.find_spec("av") is not None
    except ValueError:  # somebody keeps it from being imported
        return False


def _fixed_parts(pattern: Path) -> list[str]:
    """Return the folders of a pattern before the first one that is a pattern itself."""
    fixed: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return fixed


def _tell_left_out(paths: Sequence[Path]) -> list[str]:
    if not paths:
        return []
    kinds = ", ".join(sorted({path.suffix.lower()[1:] for path in paths}))
    files = f"{paths[0]} is" if len(paths) == 1 else f"{len(paths)} files ({kinds}) are"
    return [f"{files} left out: PyAV, which reads them, is missing: pip install 'audiossm[media]'"]
