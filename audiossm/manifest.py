"""A manifest: a JSON Lines file that lists utterances, their text and where their audio is."""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from audiossm.errors import ManifestError

__all__ = ["Utterance", "read_manifest"]

SUFFIXES = (".opus", ".wav", ".flac")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One line of a manifest.

    ``path`` is an audio file, or ``shard`` a tar archive with the member ``<key>.opus``, ``.wav``
    or ``.flac``; exactly one of them is set. ``where`` is ``file:line``, for messages.
    """

    key: str
    text: str
    path: Path | None = None
    shard: Path | None = None
    speaker: str = ""
    seconds: float | None = None
    source: str = ""
    lang: str = ""
    where: str = ""

    def open(self) -> Path | io.BytesIO:
        """Return the audio as ``audiossm.audio.open_audio`` takes it: a path, or bytes in memory.

        Raises:
            ManifestError: the shard is missing, is no tar archive or lacks the member.
        """
        if self.path is not None:
            return self.path
        assert self.shard is not None
        try:
            members = _index_shard(self.shard)
        except (OSError, tarfile.TarError) as exc:
            raise ManifestError(f"{self.where}: can't read the shard {self.shard}: {exc}") from exc
        if self.key not in members:
            raise ManifestError(
                f"{self.where}: {self.shard.name} has no {self.key}.opus, .wav or .flac: "
                "does the shard belong to this manifest?"
            )
        offset, size = members[self.key]
        with self.shard.open("rb") as archive:
            archive.seek(offset)
            return io.BytesIO(archive.read(size))


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read a manifest; ``path`` and ``shard`` in it are relative to the manifest's folder.

    Each line is an object with ``key`` and ``text``, either ``path`` or ``shard``, and optionally
    ``speaker``, ``seconds``, ``source`` and ``lang``; other fields are left alone.

    Raises:
        ManifestError: unreadable or empty, or a line is wrong (``file:line`` is named).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as exc:
        raise ManifestError(f"{path}: can't read the manifest: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ManifestError(
            f"{path}: not a manifest (it isn't UTF-8 text): expected JSON Lines"
        ) from exc
    utterances: list[Utterance] = []
    seen: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        utterance = _parse_line(line, path, f"{path}:{number}")
        if utterance.key in seen:
            raise ManifestError(
                f"{utterance.where}: key {utterance.key!r} stands at {seen[utterance.key]} too: "
                "keys must differ"
            )
        seen[utterance.key] = utterance.where
        utterances.append(utterance)
    if not utterances:
        raise ManifestError(f"{path}: the manifest is empty: expected one JSON object a line")
    return utterances


def _parse_line(line: str, manifest: Path, where: str) -> Utterance:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as exc:
        raise ManifestError(f"{where}: not JSON ({exc.msg}): expected one object a line") from exc
    if not isinstance(fields, dict):
        raise ManifestError(f"{where}: expected an object, got {type(fields).__name__}")
    path, shard = _get_string(fields, "path", where), _get_string(fields, "shard", where)
    if bool(path) == bool(shard):
        raise ManifestError(f"{where}: expected either 'path' or 'shard', got {path=} {shard=}")
    seconds = fields.get("seconds")
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (number and 0 < seconds < float("inf")):
        raise ManifestError(f"{where}: 'seconds' must be a number above 0, got {seconds!r}")
    return Utterance(
        key=_get_string(fields, "key", where, required=True),
        text=_get_string(fields, "text", where, required=True),
        path=manifest.parent / path if path else None,
        shard=manifest.parent / shard if shard else None,
        speaker=_get_string(fields, "speaker", where),
        seconds=None if seconds is None else float(seconds),
        source=_get_string(fields, "source", where),
        lang=_get_string(fields, "lang", where),
        where=where,
    )


def _get_string(
    fields: Mapping[str, object], name: str, where: str, *, required: bool = False
) -> str:
    value = fields.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        got = "nothing" if value is None else repr(value)
        raise ManifestError(f"{where}: {name!r} must be a string, got {got}")
    return value


@lru_cache(maxsize=64)
def _index_shard(shard: Path) -> dict[str, tuple[int, int]]:
    with tarfile.open(shard, "r:") as archive:
        return {
            PurePosixPath(member.name).stem: (member.offset_data, member.size)
            for member in archive
            if member.isfile() and PurePosixPath(member.name).suffix in SUFFIXES
        }
