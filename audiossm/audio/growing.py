"""A file that somebody is still writing, read as if it were a pipe."""

import io
import os
import time
from collections.abc import Callable
from typing import BinaryIO, cast

from audiossm.audio.wav import ByteStream, is_wav, read_wav_header
from audiossm.errors import AudioError

__all__ = ["GrowingFile"]

POLL_S = 0.1


class GrowingFile(io.RawIOBase):
    """Bytes of a file as they are written; it ends once it hasn't grown for a while.

    A WAV file's own length is what its writer knew when it last wrote the header: it is not
    believed, except that what stands behind it in a file whose lengths agree is no sound.

    Args:
        file: open for reading.
        name: for errors.
        timeout_s: so long without growth is the end.
        sleep: waits some seconds.
        now: tells the time in seconds.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        # without a buffer, which would keep an old header
        self._file = io.FileIO(file.fileno(), closefd=False)
        self._name, self._timeout_s = name, timeout_s
        self._sleep, self._now = sleep, now
        self._at = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read1(self, max_bytes: int) -> bytes:
        """Return what is there, after a wait if need be; empty only at the end.

        Raises:
            AudioError: the file became shorter.
        """
        begun: float | None = None
        seen = self._at
        while True:
            size = os.fstat(self._file.fileno()).st_size
            if size < self._at:
                raise AudioError(f"{self._name}: became shorter while it was followed")
            if data := self._read(min(max_bytes, self._find_end(size) - self._at)):
                return data
            if begun is None or size > seen:
                begun, seen = self._now(), size
            if self._now() - begun >= self._timeout_s:
                return b""
            self._sleep(min(POLL_S, self._timeout_s))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer, it says
        """Fill a buffer, as ``read1`` does."""
        data = self.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, num_bytes: int) -> bytes:
        if num_bytes <= 0:
            return b""
        self._file.seek(self._at)
        data = self._file.read(num_bytes)
        self._at += len(data)
        return data

    def _find_end(self, size: int) -> int:
        """Return the byte where the sound ends that is written so far."""
        self._file.seek(0)
        head = self._file.read(12)
        if not is_wav(head) or int.from_bytes(head[4:8], "little") + 8 != size:
            return size
        self._file.seek(0)
        try:
            header = ByteStream(cast(BinaryIO, self._file))
            layout = read_wav_header(header, self._name, live=True)
        except AudioError:
            return size
        if layout is None or not layout.num_bytes:
            return size
        return max(self._at, layout.start + layout.num_bytes)
