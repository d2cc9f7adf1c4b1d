"""Where snapshots of streams are kept: by name, signed, for a while."""

import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Protocol

from audiossm.errors import SnapshotError
from audiossm.streaming.seal import HEAD_SIZE, KEY_SIZE, Seal, read_epoch

__all__ = [
    "FolderStore",
    "MemoryStore",
    "SnapshotStore",
    "StoreLostError",
    "SupersededError",
    "next_epoch",
    "open_store",
]

logger = logging.getLogger(__name__)

KEEP_S = 3600.0
CHANCES = 1 << 20


class SupersededError(SnapshotError):
    """Somebody else has the stream now."""

    def __init__(self) -> None:
        super().__init__("this stream was resumed elsewhere: it can't go on here")


class StoreLostError(SnapshotError):
    """The store can't be reached, or takes nothing, now: another try may do."""


def next_epoch(epoch: int) -> int:
    """Return a higher epoch; of two owners who take one in the same moment, one has the higher."""
    return (epoch // CHANCES + 1) * CHANCES + secrets.randbelow(CHANCES)


class SnapshotStore(Protocol):
    """Keeps bytes by name. Threads may share one; several machines may, if it says so.

    An epoch, below 2**53, says who owns a name: each owner takes the next one (``next_epoch``), and
    what an earlier owner still writes is refused.
    """

    def put(self, name: str, data: bytes, epoch: int) -> None:
        """Keep ``data`` in the place of what was there, for as long as the store keeps things.

        Raises:
            SupersededError: a higher epoch is there.
            StoreLostError: it can't be kept now.
        """

    def get(self, name: str) -> tuple[bytes, int] | None:
        """Return what is kept and its epoch; None if there is nothing, or not any more.

        Raises:
            StoreLostError: it can't be read now.
            SnapshotError: it is damaged, or nobody with the key wrote it.
        """

    def renew(self, name: str) -> None:
        """Keep it for as long again.

        Raises:
            StoreLostError: that can't be done now.
        """

    def delete(self, name: str) -> None:
        """Forget it, if it is there; what can't be reached now is forgotten in its time."""

    def sweep(self) -> int:
        """Forget what was kept long enough; return how many."""


class MemoryStore:
    """A store in this process, for one that needs nothing after its end."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self.keep_s = keep_s
        self.kept: dict[str, tuple[bytes, int, float]] = {}
        self.lock = threading.Lock()

    def put(self, name: str, data: bytes, epoch: int) -> None:
        """Keep ``data``."""
        with self.lock:
            found = self.kept.get(name)
            if found is not None and found[1] > epoch:
                raise SupersededError
            self.kept[name] = (data, epoch, time.time() + self.keep_s)

    def get(self, name: str) -> tuple[bytes, int] | None:
        """Return what is kept."""
        found = self.kept.get(name)
        return None if found is None or found[2] < time.time() else found[:2]

    def renew(self, name: str) -> None:
        """Keep it for as long again."""
        with self.lock:
            if name in self.kept:
                self.kept[name] = (*self.kept[name][:2], time.time() + self.keep_s)

    def delete(self, name: str) -> None:
        """Forget it."""
        with self.lock:
            self.kept.pop(name, None)

    def sweep(self) -> int:
        """Forget what is too old."""
        with self.lock:
            old = [name for name, (_, _, until) in self.kept.items() if until < time.time()]
            for name in old:
                del self.kept[name]
        return len(old)


class FolderStore:
    """A store in a folder, which processes of one machine may share.

    A file is written whole beside its place and then moved there: a process that dies leaves the
    old one or the new one. It survives the process, not a power cut, as nothing waits for the disk.
    Files are signed (HMAC-SHA256 over name, epoch and content) by a key that only the folder's
    owner can read; their names are made with it as well, so that a list of the folder gives no
    handle of a stream away. What isn't written or renewed for ``keep_s`` seconds is forgotten.
    Without ``key`` the first process makes one and keeps it there.

    Raises:
        SnapshotError: the folder can't be made or written, or its key is none.
    """

    def __init__(
        self, folder: str | Path, keep_s: float = KEEP_S, key: bytes | None = None
    ) -> None:
        self.folder, self.keep_s = Path(folder), keep_s
        self.lock = threading.Lock()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = self._read_key() if key is None else key
        except OSError as exc:
            raise SnapshotError(f"{folder}: can't keep snapshots there: {exc.strerror}") from exc
        self.seal = Seal(key, str(self.folder / "key"))

    def put(self, name: str, data: bytes, epoch: int) -> None:
        """Keep ``data``."""
        path = self._path(name)
        new = path.with_suffix(f".{secrets.token_hex(6)}.new")
        try:
            # two owners within one moment could still pass each other between look and move
            with self.lock:
                if self._epoch(path) > epoch:
                    raise SupersededError
                with open(new, "wb", opener=_private) as file:
                    file.write(self.seal.close(name, data, epoch))
                new.replace(path)
        except OSError as exc:
            new.unlink(missing_ok=True)
            raise StoreLostError(f"{path}: can't keep a snapshot: {exc.strerror}") from exc

    def get(self, name: str) -> tuple[bytes, int] | None:
        """Return what is kept."""
        path = self._path(name)
        try:
            if path.stat().st_mtime + self.keep_s < time.time():
                return None
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreLostError(f"{path}: can't read the snapshot: {exc.strerror}") from exc
        return self.seal.open(name, content)

    def renew(self, name: str) -> None:
        """Keep it for as long again."""
        try:
            os.utime(self._path(name))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise StoreLostError(f"can't renew a snapshot: {exc.strerror}") from exc

    def delete(self, name: str) -> None:
        """Forget it."""
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as exc:
            logger.warning("a snapshot stays for a while: %s", exc.strerror)

    def sweep(self) -> int:
        """Forget what is too old, also what a process left that died while it wrote."""
        count = 0
        for path in (*self.folder.glob("*.kept"), *self.folder.glob("*.new")):
            try:
                if path.stat().st_mtime + self.keep_s < time.time():
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                pass  # another process swept it
        return count

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.seal.hide(name)}.kept"

    def _epoch(self, path: Path) -> int:
        try:
            with path.open("rb") as file:
                head = file.read(HEAD_SIZE)
        except FileNotFoundError:
            return 0
        return read_epoch(head)

    def _read_key(self) -> bytes:
        """Return the folder's key; the first process makes it."""
        path = self.folder / "key"
        if not path.exists():
            new = self.folder / f"key.{secrets.token_hex(6)}.new"
            with open(new, "wb", opener=_private) as file:
                file.write(secrets.token_bytes(KEY_SIZE))
            try:
                os.link(new, path)  # unlike a move it fails if another process was first
            except FileExistsError:
                pass
            finally:
                new.unlink()
        return path.read_bytes()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def open_store(
    where: str | Path, keep_s: float = KEEP_S, key: bytes | None = None
) -> SnapshotStore:
    """Return the store in a folder, or in a Redis by its address (``redis://``, ``rediss://``...).

    Raises:
        DependencyError: the package redis isn't installed.
        SnapshotError: it can't be used.
    """
    if "://" not in str(where):
        return FolderStore(where, keep_s, key)
    from audiossm.streaming.redis_store import RedisStore

    return RedisStore(str(where), keep_s, key)
