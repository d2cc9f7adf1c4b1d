"""A loudspeaker that takes samples, by PortAudio."""

import threading
from collections import deque
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import OutputError
from audiossm_apps.microphone import import_portaudio

__all__ = ["Loudspeaker"]

# it begins when so much waits or has waited as long, also after it ran dry, so that what comes
# unevenly sounds even; and who writes waits when so much does
START_S, AHEAD_S = 0.2, 1.0
LATENCY_S = 0.3  # of the sound card: 'high' may be 35 ms, in which a busy machine looks elsewhere
LOOK_S = 0.5  # how often it is looked after while somebody waits


class Loudspeaker:
    """The system's loudspeaker, which plays within ``with``; its end waits for the last sample.

    While there is nothing to play it is silent.

    Args:
        sample_rate: Hz.

    Raises:
        DependencyError: sounddevice or PortAudio isn't installed.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sounddevice = import_portaudio("a loudspeaker")
        self._sample_rate = sample_rate
        self._stream: Any = None
        self._changed = threading.Condition()  # of all below
        self._waiting: deque[NDArray[np.float32]] = deque()
        self._num_waiting = self._held = 0  # held: so many samples of silence while some waited
        self._playing = self._ended = False

    def __enter__(self) -> Self:
        error = self._sounddevice.PortAudioError
        try:
            self._stream = self._sounddevice.OutputStream(
                samplerate=self._sample_rate,
                channels=1,
                dtype="float32",
                latency=LATENCY_S,
                callback=self._fill,
            )
            self._stream.start()
        except (error, ValueError) as exc:
            raise OutputError(f"the loudspeaker can't be opened: {exc}") from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                # what a sound card hasn't played when it is stopped may be lost: let it be nothing
                self.write(np.zeros(round(LATENCY_S * self._sample_rate), np.float32))
                with self._changed:
                    self._ended = True
                self._wait(0)
                self._stream.stop()
            else:
                self._stream.abort()
        finally:
            self._stream.close()

    def write(self, samples: NDArray[np.float32]) -> None:
        """Play (samples,) float32 after what was written before; it waits for room.

        Raises:
            OutputError: the loudspeaker is gone.
        """
        if not len(samples):
            return
        self._wait(round(AHEAD_S * self._sample_rate))
        with self._changed:
            self._waiting.append(np.clip(samples, -1.0, 1.0))
            self._num_waiting += len(samples)

    def _wait(self, most: int) -> None:
        """Wait until no more than so many samples wait."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._num_waiting <= most, LOOK_S):
                if not self._stream.active:
                    raise OutputError("the loudspeaker is gone")

    def _fill(self, out: NDArray[np.float32], count: int, *_: object) -> None:
        """Give PortAudio its next block, in its thread."""
        out.fill(0.0)
        with self._changed:
            self._held = self._held + count if self._waiting and not self._playing else 0
            enough = max(self._num_waiting, self._held) >= START_S * self._sample_rate
            self._playing |= enough or self._ended
            at = 0
            while self._playing and self._waiting and at < count:
                block = self._waiting.popleft()
                size = min(len(block), count - at)
                out[at : at + size, 0] = block[:size]
                if size < len(block):
                    self._waiting.appendleft(block[size:])
                at += size
            self._num_waiting -= at
            if not self._waiting:
                self._playing = False
            self._changed.notify_all()
