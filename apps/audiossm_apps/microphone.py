"""A microphone as blocks of samples, by PortAudio."""

import queue
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.errors import AudioError, DependencyError

__all__ = ["Microphone", "import_portaudio", "list_devices"]

Samples = NDArray[np.float32]

BLOCK_S = 0.02
KEPT_S = 30.0  # audio that may wait for whoever reads; what comes then is lost, and counted
LONGEST_S = 1.0  # of a block that is handed out, when much waits
HIGHEST_RATE = 48000  # Hz; what is above says nothing about words
SILENT_S = 5.0  # a device that gives no blocks for so long is gone


def list_devices() -> list[str]:
    """Return a line for each microphone: its number, its name, and a mark if it is the default.

    Raises:
        DependencyError: sounddevice or PortAudio isn't installed.
        AudioError: there is no microphone.
    """
    sounddevice = import_portaudio("a microphone")
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (ValueError, sounddevice.PortAudioError):
        default = None
    lines = [
        f"{device['index']:>3}  {device['name']}, {device['default_samplerate']:.0f} Hz"
        + (" (default)" if device["index"] == default else "")
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]
    if not lines:
        raise AudioError("this machine has no microphone")
    return lines


class Microphone:
    """A microphone, which records within ``with``.

    Args:
        device: its number, or a part of its name; the system's default without.

    Attributes:
        name: as the system calls it.
        sample_rate: Hz.
        num_samples: that were handed out.
        overflows: how often the system lost samples, nobody knows how many.
        dropped: samples that were lost here, as nobody read them in time.
        problem: why it stopped by itself, if it did.

    Raises:
        DependencyError: sounddevice or PortAudio isn't installed.
        AudioError: there is no such microphone.
    """

    def __init__(self, device: str | None = None) -> None:
        sounddevice = self._sounddevice = import_portaudio("a microphone")
        self.device = int(device) if device is not None and device.isdecimal() else device
        try:
            form = sounddevice.query_devices(self.device, "input")
        except (ValueError, sounddevice.PortAudioError) as exc:
            if device is None:
                raise AudioError("this machine has no microphone") from exc
            raise AudioError(
                f"{device!r} is no microphone here: see 'audiossm mic --list-devices'"
            ) from exc
        self.name = str(form["name"])
        self.sample_rate = min(round(form["default_samplerate"]), HIGHEST_RATE)
        self.num_channels = min(2, form["max_input_channels"])
        self.num_samples = self.overflows = self.dropped = 0
        self.problem: str | None = None
        self._peak = 0.0
        self._ended, self._stopped = threading.Event(), False
        self._queue: queue.Queue[Samples] = queue.Queue(round(KEPT_S / BLOCK_S))
        self._stream: Any = None

    def __enter__(self) -> Self:
        error = self._sounddevice.PortAudioError
        try:
            self._stream = self._sounddevice.InputStream(
                samplerate=self.sample_rate,
                blocksize=round(self.sample_rate * BLOCK_S),
                device=self.device,
                channels=self.num_channels,
                dtype="float32",
                callback=self._take,
                finished_callback=self._ended.set,
            )
            self._stream.start()
        except (error, ValueError) as exc:
            self._close()
            raise AudioError(f"{self.name}: the microphone can't be opened: {exc}") from exc
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Record no more; ``blocks`` ends with what waits."""
        self._stopped = True
        self._ended.set()
        self._close()

    def blocks(self) -> Iterator[Samples]:
        """Yield blocks (samples,) float32, channels averaged, until the microphone stops.

        If they are taken more slowly than they come, several come as one.
        """
        longest = round(LONGEST_S / BLOCK_S)
        heard = time.monotonic()
        while True:
            try:
                blocks = [self._queue.get(timeout=0.05)]
            except queue.Empty:
                if self._ended.is_set() and self._queue.empty():
                    if not self._stopped:
                        self.problem = f"{self.name}: the microphone is gone"
                    return
                if time.monotonic() - heard > SILENT_S:
                    self.problem = f"{self.name}: the microphone gives nothing"
                    return
                continue
            heard = time.monotonic()
            while len(blocks) < longest and not self._queue.empty():
                blocks.append(self._queue.get_nowait())
            samples = np.concatenate(blocks).mean(axis=1, dtype=np.float32)
            self.num_samples += len(samples)
            self._peak = max(self._peak, float(np.abs(samples).max(initial=0.0)))
            yield samples

    @property
    def waiting_s(self) -> float:
        """Audio that was recorded, but not taken yet."""
        return self._queue.qsize() * BLOCK_S

    def take_peak(self) -> float:
        """Return the highest magnitude since the last call."""
        peak, self._peak = self._peak, 0.0
        return peak

    def _take(self, data: Samples, frames: int, time: object, status: Any) -> None:
        # on the audio thread: copy and go
        if status.input_overflow:
            self.overflows += 1
        try:
            self._queue.put_nowait(data.copy())
        except queue.Full:
            self.dropped += frames

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()  # no callback runs when it returns


def import_portaudio(what: str) -> ModuleType:
    """Import sounddevice.

    Raises:
        DependencyError: ``what`` needs it, or PortAudio, and it isn't installed.
    """
    try:
        import sounddevice
    except ImportError as exc:
        raise DependencyError(
            f"{what} needs the package sounddevice: pip install 'audiossm[mic]'"
        ) from exc
    except OSError as exc:
        raise DependencyError(
            f"{what} needs the library PortAudio (on Debian and Ubuntu: apt install libportaudio2)"
        ) from exc
    module: ModuleType = sounddevice
    return module
