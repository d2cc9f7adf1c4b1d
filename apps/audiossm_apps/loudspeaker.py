"""A loudspeaker that takes samples, by PortAudio."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import OutputError
from audiossm_apps.microphone import import_portaudio

__all__ = ["Loudspeaker"]


class Loudspeaker:
    """The system's loudspeaker, which plays within ``with``; its end waits for the last sample.

    Args:
        sample_rate: Hz.

    Raises:
        DependencyError: sounddevice or PortAudio isn't installed.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sounddevice = import_portaudio("a loudspeaker")
        self._sample_rate = sample_rate
        self._stream: Any = None

    def __enter__(self) -> Self:
        error = self._sounddevice.PortAudioError
        try:
            self._stream = self._sounddevice.OutputStream(
                samplerate=self._sample_rate, channels=1, dtype="float32", latency="high"
            )
            self._stream.start()
        except (error, ValueError) as exc:
            raise OutputError(f"the loudspeaker can't be opened: {exc}") from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._stream.stop()
        else:
            self._stream.abort()
        self._stream.close()

    def write(self, samples: NDArray[np.float32]) -> None:
        """Play (samples,) float32 after what was written before; it waits for room.

        Raises:
            OutputError: the loudspeaker is gone.
        """
        try:
            self._stream.write(np.clip(samples, -1.0, 1.0)[:, np.newaxis])
        except self._sounddevice.PortAudioError as exc:
            raise OutputError(f"the loudspeaker is gone: {exc}") from exc
