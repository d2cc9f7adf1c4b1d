"""How folders of speech are laid out: where the recordings are, what is said, by whom."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from audiossm.errors import ManifestError
from audiossm.manifest import Utterance, read_manifest
from audiossm.suffixes import MEDIA, PLAIN

__all__ = [
    "LAYOUTS",
    "Recording",
    "find_layout",
    "name_member",
    "read_layout",
    "read_librispeech",
    "read_table",
]

TEXT_SUFFIXES = (".txt", ".lab")
TABLES = ("validated.tsv", "train.tsv", "dev.tsv", "test.tsv")
COLUMNS = {"path": ("path", "filename"), "text": ("sentence", "text"), "speaker": ("client_id", "")}
VOTES = ("up_votes", "down_votes")
NO_RECORDING = "no such recording"


@dataclass(frozen=True)
class Recording:
    """An utterance of a folder, perhaps a piece of a longer file, and why it can't be used, if so.

    ``end_s`` None is the end of the file.
    """

    utterance: Utterance
    start_s: float = 0.0
    end_s: float | None = None
    fault: str = ""


def find_layout(folder: Path) -> str:
    """Tell which of ``LAYOUTS`` a folder, or a manifest, has.

    Raises:
        ManifestError: none of them.
    """
    if folder.is_file():
        if folder.suffix == ".jsonl":
            return "manifest"
        raise ManifestError(f"{folder}: expected a folder or a manifest (.jsonl), got a file")
    if not folder.is_dir():
        raise ManifestError(f"{folder}: there is no such folder")
    if (folder / "wav.scp").is_file() and (folder / "text").is_file():
        return "kaldi"
    if (folder / "metadata.csv").is_file():
        return "ljspeech"
    if (folder / "clips").is_dir() and any((folder / name).is_file() for name in TABLES):
        return "commonvoice"
    if any(folder.glob("*.jsonl")):
        return "manifest"
    if any(folder.rglob("*.trans.txt")):
        return "librispeech"
    if any(is_audio(path) and find_text(path) for path in walk(folder)):
        return "pairs"
    raise ManifestError(
        f"{folder}: no layout that is known: expected {'; '.join(f'{n}: {w}' for n, w in SIGNS)}"
    )


def read_layout(folder: Path, layout: str) -> list[Recording]:
    """List a folder's utterances, as ``find_layout`` or the caller says it is laid out.

    What is there but can't be used has a ``fault``. Keys of the others differ, also as
    ``name_member`` writes them.

    Raises:
        ManifestError: the folder isn't laid out so, or a table in it can't be read.
    """
    if layout not in LAYOUTS:
        raise ManifestError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    try:
        found = list(LAYOUTS[layout](folder))
    except OSError as exc:
        raise ManifestError(f"{exc.filename or folder}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{folder}: a text in it isn't UTF-8: {exc}") from exc
    if not found:
        raise ManifestError(f"{folder}: nothing in it is laid out as {layout!r}")
    seen, named = set[str](), []
    for item in found:
        key = name_member(item.utterance.key)
        fault = "the key stands twice" if key in seen else item.fault
        seen.add(key)
        named.append(Recording(item.utterance, item.start_s, item.end_s, fault))
    return named


def read_librispeech(folder: Path) -> Iterator[Recording]:
    """Read ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` with the recordings beside it."""
    for table in sorted(folder.rglob("*.trans.txt")):
        for key, text in split_lines(table):
            speaker = f"libri_{key.split('-')[0]}"
            path = find_audio(table.parent / key)
            yield make(key, path or table.parent / f"{key}.flac", text, speaker, path is None)


def read_ljspeech(folder: Path) -> Iterator[Recording]:
    """Read ``metadata.csv``, lines of ``id|text|text in full``, with ``wavs/id.wav``."""
    table = folder / "metadata.csv"
    for number, line in enumerate(read_text(table).splitlines(), 1):
        if not line.strip():
            continue
        key, bar, rest = line.partition("|")
        if not bar:
            raise ManifestError(f"{table}:{number}: expected 'id|text', got {line[:40]!r}")
        raw, _, full = rest.partition("|")
        places = [folder / "wavs" / key, folder / key]
        path = next(filter(None, map(find_audio, places)), None)
        yield make(
            name_member(key), path or places[0], full.strip() or raw, folder.name, path is None
        )


def read_commonvoice(folder: Path) -> Iterator[Recording]:
    """Read ``validated.tsv``, or train, dev and test, with ``clips/``."""
    names = [name for name in TABLES if (folder / name).is_file()]
    if not names:
        raise ManifestError(f"{folder}: expected one of {', '.join(TABLES)}")
    for name in names[:1] if names[0] == TABLES[0] else names:
        yield from read_table(folder / name, folder / "clips", speaker_prefix="cv_")


def read_kaldi(folder: Path) -> Iterator[Recording]:
    """Read ``wav.scp``, ``text``, and ``utt2spk`` and ``segments`` if they are there."""
    files = dict(split_lines(folder / "wav.scp"))
    speakers, segments = (
        dict(split_lines(folder / name)) if (folder / name).is_file() else {}
        for name in ("utt2spk", "segments")
    )
    for key, text in split_lines(folder / "text"):
        name, start, end, wrong = key, 0.0, None, ""
        if segments:
            name, start, end, wrong = read_segment(segments.get(key, ""))
        if wrong:
            yield make(name_member(key), folder, text, speakers.get(key, ""), wrong)
            continue
        source = files.get(name, "")
        if source.rstrip().endswith("|"):
            path, fault = folder / name, "wav.scp has a command, not a file"
        else:
            places = [Path(source), folder / source]
            path = next((place for place in places if source and place.is_file()), folder / name)
            fault = "" if path.is_file() else NO_RECORDING
        made = make(name_member(key), path, text, speakers.get(key, ""), fault)
        yield Recording(made.utterance, start, end, made.fault)


def read_segment(line: str) -> tuple[str, float, float | None, str]:
    """Read ``RECORDING START END``; return these, in seconds, and what is wrong, if anything.

    END -1 is that of the recording, for which None stands.
    """
    if not line:
        return "", 0.0, None, "no line in segments"
    try:
        name, first, last = line.split()
        start, end = float(first), float(last)
    except ValueError:
        return "", 0.0, None, "its line in segments isn't 'recording start end'"
    if end == -1 and 0 <= start < inf:
        return name, start, None, ""
    if not 0 <= start < end < inf:
        return name, 0.0, None, "its segment doesn't end after it starts"
    return name, start, end, ""


def read_pairs(folder: Path) -> Iterator[Recording]:
    """Read ``a.wav`` with ``a.txt`` (or ``.lab``) beside it; a folder below is a speaker."""
    paths = sorted(walk(folder))
    heard = {path.with_suffix("") for path in paths if is_audio(path)}
    for path in paths:
        text, fault, written = "", "", find_text(path)
        if path.suffix in TEXT_SUFFIXES and path.with_suffix("") not in heard:
            fault = "no recording beside it"
        elif not is_audio(path):
            continue
        elif written is None:
            fault = "no text beside it"
        else:
            try:
                text = read_text(written)
            except ManifestError:
                fault = "its text isn't UTF-8"
        place = path.relative_to(folder)
        speaker = place.parts[-2] if len(place.parts) > 1 else ""
        yield make(name_member(str(place.with_suffix(""))), path, text, speaker, fault)


def read_manifests(folder: Path) -> Iterator[Recording]:
    """Read a manifest, or all of a folder."""
    for path in [folder] if folder.is_file() else sorted(folder.glob("*.jsonl")):
        for utterance in read_manifest(path):
            missing = utterance.path is not None and not utterance.path.is_file()
            yield Recording(utterance, fault=NO_RECORDING if missing else "")


def read_table(
    table: Path,
    clips: Path,
    *,
    columns: Sequence[Sequence[str]] = tuple(COLUMNS.values()),
    speaker_prefix: str = "",
) -> Iterator[Recording]:
    """Read a csv or tsv file with a header, as Common Voice has them.

    Args:
        table: the file.
        clips: folder of the recordings.
        columns: possible names of the columns of path, text and speaker; "" if it may lack.
        speaker_prefix: of the speakers' names.

    Raises:
        ManifestError: a column is missing.
    """
    text = read_text(table)
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    if "\t" in text.split("\n")[0]:  # in Common Voice's tsv a quote is a character as any other
        rows = csv.DictReader(text.split("\n"), restval="", delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [*(rows.fieldnames or ()), ""]
    chosen = [next(filter(header.__contains__, names), None) for names in columns]
    if None in chosen:
        wanted = [list(names) for names in columns]
        raise ManifestError(f"{table}: expected a column of each of {wanted}, got {header}")
    path_column, text_column, speaker_column = chosen
    for row in rows:
        name, said = row[path_column], " ".join(row[text_column].split())
        if re.fullmatch(r'"([^"]|"")+"', said):  # so in the tsv of some releases
            said = said[1:-1].replace('""', '"').strip()
        path = next(filter(Path.is_file, (clips / name, clips / Path(name).name)), None)
        stem = re.sub(r"\.\w+$", "", name)
        # without ids each clip has a speaker of its own; a long hash is cut
        speaker = speaker_prefix + re.sub(
            "^([0-9a-f]{16})[0-9a-f]{16,}$", r"\1", row.get(speaker_column or "") or stem
        )
        up, down = (int(row[v]) if row.get(v, "").isdecimal() else 0 for v in VOTES)
        fault: str | bool = path is None
        if path is not None and all(v in row for v in VOTES) and up <= down:
            fault = "not more up-votes than down-votes"
        yield make(name_member(stem), path or Path(name), said, speaker, fault)


LAYOUTS: dict[str, Callable[[Path], Iterable[Recording]]] = {
    "librispeech": read_librispeech,
    "ljspeech": read_ljspeech,
    "commonvoice": read_commonvoice,
    "kaldi": read_kaldi,
    "pairs": read_pairs,
    "manifest": read_manifests,
}
SIGNS = (
    ("librispeech", "*.trans.txt"),
    ("ljspeech", "metadata.csv"),
    ("commonvoice", "clips/ and validated.tsv"),
    ("kaldi", "wav.scp and text"),
    ("pairs", "a.txt beside a.wav"),
    ("manifest", "*.jsonl"),
)


def make(key: str, path: Path, text: str, speaker: str, fault: str | bool) -> Recording:
    """Make a recording; ``fault`` True is that the file is missing."""
    said = " ".join(text.split())
    utterance = Utterance(key=key, text=said, path=path, speaker=speaker, where=str(path))
    return Recording(utterance, fault=NO_RECORDING if fault is True else fault or "")


def name_member(key: str) -> str:
    """Return a key that can be a member's name in an archive."""
    return re.sub(r"[^\w.' -]+", "_", key.strip()).replace(" ", "_")


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, but no hidden ones."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def is_audio(path: Path) -> bool:
    """Tell whether a file is called as a recording is."""
    return path.suffix.lower() in PLAIN | MEDIA


def find_text(path: Path) -> Path | None:
    """Return the text that is called as a recording is, but for its suffix."""
    texts = (path.with_suffix(suffix) for suffix in TEXT_SUFFIXES)
    return next(filter(Path.is_file, texts), None)


def find_audio(path: Path) -> Path | None:
    """Return the recording that is called as ``path``, whatever its suffix."""
    names = [path, *(Path(f"{path}{suffix}") for suffix in sorted(PLAIN))]
    return next((name for name in names if name.suffix and name.is_file()), None)


def split_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the first word and the rest of each line."""
    for line in read_text(path).splitlines():
        if line.strip():
            key, *rest = line.split(maxsplit=1)
            yield key, "".join(rest).strip()


def read_text(path: Path) -> str:
    """Read UTF-8 with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ManifestError(
            f"{path}: isn't UTF-8 text (can't decode byte {exc.start}): save it as UTF-8"
        ) from exc
