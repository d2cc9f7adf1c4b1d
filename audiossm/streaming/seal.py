"""What makes kept bytes one's own: a key, names that give nothing away, and signatures."""

import hashlib
import hmac

from audiossm.errors import SnapshotError

__all__ = ["EPOCH_SIZE", "HEAD_SIZE", "KEY_SIZE", "MAGIC", "Seal", "read_epoch"]

MAGIC = b"audiossm-kept-01"
DIGEST_SIZE = hashlib.sha256().digest_size
EPOCH_SIZE = 8
HEAD_SIZE = len(MAGIC) + EPOCH_SIZE
KEY_SIZE = 32


class Seal:
    """Signs by HMAC-SHA256 over name, epoch and content.

    Args:
        key: ``KEY_SIZE`` bytes.
        where: it is from, for errors.

    Raises:
        SnapshotError: it isn't so long.
    """

    def __init__(self, key: bytes, where: str) -> None:
        if len(key) != KEY_SIZE:
            raise SnapshotError(f"{where}: not a key of {KEY_SIZE} bytes")
        self.key = key

    def hide(self, name: str) -> str:
        """Return what a name is kept under: who sees it can't resume the stream."""
        return hmac.digest(self.key, name.encode(), "sha256").hex()

    def close(self, name: str, data: bytes, epoch: int) -> bytes:
        """Return what is to be kept."""
        head = MAGIC + epoch.to_bytes(EPOCH_SIZE, "little")
        return head + data + self._sign(name, head, data)

    def open(self, name: str, content: bytes) -> tuple[bytes, int]:
        """Return the data and the epoch of what was kept.

        Raises:
            SnapshotError: it is damaged, or nobody with the key wrote it.
        """
        head, data = content[:HEAD_SIZE], content[HEAD_SIZE:-DIGEST_SIZE]
        if len(content) < HEAD_SIZE + DIGEST_SIZE or head[: len(MAGIC)] != MAGIC:
            raise SnapshotError("what is kept under this name is no snapshot")
        if not hmac.compare_digest(content[-DIGEST_SIZE:], self._sign(name, head, data)):
            raise SnapshotError("the kept snapshot is damaged, or was signed with another key")
        return data, read_epoch(head)

    def _sign(self, name: str, head: bytes, data: bytes) -> bytes:
        mark = hmac.new(self.key, hashlib.sha256(name.encode()).digest(), "sha256")
        mark.update(head)
        mark.update(data)
        return mark.digest()


def read_epoch(head: bytes) -> int:
    """Return the epoch at the begin of what is kept."""
    return int.from_bytes(head[len(MAGIC) : HEAD_SIZE], "little")
