"""Shards, tar archives of short recordings, and their manifest."""

import io
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from audiossm.manifest import Utterance

__all__ = ["SHARD_BYTES", "ShardWriter"]

SHARD_BYTES = 28_000_000


class ShardWriter:
    """Writes ``NAME.jsonl`` and ``NAME-00.tar`` and so on into a folder; a context manager.

    Args:
        folder: where; it is there.
        name: of the set.
        replaces: whether an older manifest goes.
        shard_bytes: no shard is larger, unless one recording is.

    Raises:
        FileExistsError: there is such a manifest, and it mustn't be replaced.
    """

    def __init__(
        self, folder: Path, name: str, *, replaces: bool = False, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.name, self.shard_bytes = folder, name, shard_bytes
        self.path = folder / f"{name}.jsonl"
        self.num_shards = 0
        self._manifest = self.path.open("w" if replaces else "x", encoding="utf-8")
        self._archive = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._shard = ""

    def add(self, utterance: Utterance, data: bytes, suffix: str) -> None:
        """Write a recording and its line; ``path`` and ``shard`` of ``utterance`` don't matter."""
        # a header, padding, and at the end as much as makes the archive a multiple of 10240
        if self._tar is None or self._tar.offset + len(data) + 12 * 1024 > self.shard_bytes:
            self._archive.close()
            self._shard = f"{self.name}-{self.num_shards:02}.tar"
            self.num_shards += 1
            self._tar = self._archive.enter_context(tarfile.open(self.folder / self._shard, "w"))
        member = tarfile.TarInfo(f"{utterance.key}{suffix}")
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        row = {"key": utterance.key, "shard": self._shard, "text": utterance.text}
        seconds = None if utterance.seconds is None else round(utterance.seconds, 3)
        row |= {"speaker": utterance.speaker, "seconds": seconds}  # type: ignore[dict-item]
        row |= {"source": utterance.source, "lang": utterance.lang}
        self._manifest.write(json.dumps(row, ensure_ascii=False) + "\n")

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()
        self._manifest.close()
