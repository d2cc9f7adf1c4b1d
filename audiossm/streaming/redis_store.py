"""Snapshots in Redis, for servers of several machines; the one module that imports redis."""

import logging
import re
import secrets
from typing import Any, cast

from audiossm.errors import DependencyError, SnapshotError
from audiossm.streaming.seal import KEY_SIZE, Seal
from audiossm.streaming.store import KEEP_S, StoreLostError, SupersededError

__all__ = ["RedisStore"]

logger = logging.getLogger(__name__)

PREFIX = "audiossm:"
TIMEOUT_S = 5.0  # a turn may wait for so long, and much longer would be given up as stuck
# no other server comes between the look and the write
PUT = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'content', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class RedisStore:
    """A store in a Redis, version 4 or later, for servers of several machines.

    Each snapshot is a hash ``audiossm:kept:`` and a name that gives no handle away. It is signed as
    ``FolderStore`` does, and Redis forgets it after ``keep_s`` seconds by itself. A write is done
    when Redis has it in memory; whether it survives Redis is a matter of Redis' own settings.
    Without ``key`` the first server makes one and keeps it there, too, and then signatures find
    damage only: who can write to the database can forge.

    Args:
        address: ``redis://host:port/number``, ``rediss://`` (TLS) or ``unix://path``; with user and
            password, if it has some.
        keep_s: what isn't written or renewed for so long is forgotten.
        key: 32 bytes that sign, the same for all servers.

    Raises:
        DependencyError: the package redis isn't installed.
        SnapshotError: nobody answers there, or the key is none.
    """

    def __init__(self, address: str, keep_s: float = KEEP_S, key: bytes | None = None) -> None:
        try:
            import redis
        except ImportError as exc:
            raise DependencyError(
                "a store in Redis needs the package redis: pip install 'audiossm[redis]'"
            ) from exc
        self.keep_ms = max(1, round(keep_s * 1000))
        self.where = _hide_password(address)
        self._error = redis.RedisError
        try:
            self._redis: Any = redis.Redis.from_url(
                address, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
            self._put = self._redis.register_script(PUT)
            if key is None:
                self._redis.set(f"{PREFIX}key", secrets.token_bytes(KEY_SIZE), nx=True)
                kept: Any = self._redis.get(f"{PREFIX}key")
                key = cast("bytes", kept) or b""
            else:
                self._redis.ping()
        except (redis.RedisError, ValueError) as exc:
            raise SnapshotError(f"{self.where}: can't keep snapshots there: {exc}") from exc
        self.seal = Seal(key, f"{self.where}, {PREFIX}key")

    def put(self, name: str, data: bytes, epoch: int) -> None:
        """Keep ``data``."""
        content = self.seal.close(name, data, epoch)
        try:
            done = self._put(keys=[self._name(name)], args=[epoch, content, self.keep_ms])
        except self._error as exc:
            raise StoreLostError(f"{self.where}: can't keep a snapshot: {exc}") from exc
        if not done:
            raise SupersededError

    def get(self, name: str) -> tuple[bytes, int] | None:
        """Return what is kept."""
        try:
            content = self._redis.hget(self._name(name), "content")
        except self._error as exc:
            raise StoreLostError(f"{self.where}: can't read the snapshot: {exc}") from exc
        return None if content is None else self.seal.open(name, content)

    def renew(self, name: str) -> None:
        """Keep it for as long again."""
        try:
            self._redis.pexpire(self._name(name), self.keep_ms)
        except self._error as exc:
            raise StoreLostError(f"{self.where}: can't renew a snapshot: {exc}") from exc

    def delete(self, name: str) -> None:
        """Forget it."""
        try:
            self._redis.delete(self._name(name))
        except self._error as exc:
            logger.warning("a snapshot stays for a while: %s: %s", self.where, exc)

    def sweep(self) -> int:
        """Do nothing: Redis forgets by itself."""
        return 0

    def _name(self, name: str) -> str:
        return f"{PREFIX}kept:{self.seal.hide(name)}"


def _hide_password(address: str) -> str:
    return re.sub(r"//[^/]*@", "//", address)
