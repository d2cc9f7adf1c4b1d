"""Where speech goes: files, pipes and a loudspeaker, all of which take it as it comes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from audiossm.errors import AudioError, OutputError
from audiossm_apps.outputs import ByteOutput, open_bytes

if TYPE_CHECKING:
    from audiossm.audio import WavWriter
    from audiossm.streaming import Sound, Speaker
    from audiossm_apps.loudspeaker import Loudspeaker
    from audiossm_apps.speech_client import RemoteSpeech

__all__ = ["SUFFIXES", "SpeechOutput", "open_speech"]

# libsndfile's format and coding
CONTAINERS = {
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
SUFFIXES = (".wav", *CONTAINERS, ".ssma")


class SpeechOutput(Protocol):
    """Takes sounds as they come."""

    def write(self, sound: "Sound") -> None:
        """Take the next one."""

    def finish(self) -> None:
        """Write what ends the output; also when speech was stopped."""


@contextlib.contextmanager
def open_speech(
    target: str | None, speaker: "Speaker | RemoteSpeech", comment: str, *, raw: bool = False
) -> Iterator[SpeechOutput]:
    """Open a file by its suffix, ``-`` for standard output, or the loudspeaker without a target.

    An old file keeps its content until the first sound.

    Args:
        target: one of ``SUFFIXES``, or ``-``.
        speaker: whose sound it is.
        comment: what the file says of itself, where its format has a place for that.
        raw: standard output gets signed 16-bit little-endian samples and no header.

    Raises:
        DependencyError: a loudspeaker needs a package that isn't installed.
        OutputError: nothing can be written there.
    """
    from audiossm.audio import WavWriter

    if target is None:
        from audiossm_apps.loudspeaker import Loudspeaker

        with Loudspeaker(speaker.sample_rate) as loudspeaker:
            yield _Played(loudspeaker)
        return
    suffix = Path(target).suffix.lower()
    if suffix in CONTAINERS:
        container = _Contained(target, speaker.sample_rate, *CONTAINERS[suffix], comment)
        try:
            yield container
        finally:
            container.close()
        return
    with open_bytes(target) as stream:
        if suffix == ".ssma":
            yield _Coded(stream, cast("Speaker", speaker), comment)
        elif raw:
            yield _Raw(stream)
        else:
            yield _Waved(WavWriter(stream, speaker.sample_rate, 1, comment=comment))


class _Waved:
    def __init__(self, writer: "WavWriter") -> None:
        self.writer = writer

    def write(self, sound: "Sound") -> None:
        self.writer.write(sound.samples[None])

    def finish(self) -> None:
        self.writer.finish()


class _Raw:
    def __init__(self, stream: ByteOutput) -> None:
        self.stream = stream

    def write(self, sound: "Sound") -> None:
        import numpy as np

        whole = np.clip(np.rint(sound.samples * 2.0**15), -(2**15), 2**15 - 1)
        self.stream.write(whole.astype("<i2").tobytes())

    def finish(self) -> None:
        pass


class _Coded:
    def __init__(self, stream: ByteOutput, speaker: "Speaker", comment: str) -> None:
        from audiossm.codec import CodeWriter

        form = speaker.codec.describe(num_groups=speaker.config.num_groups)
        self.writer = CodeWriter(stream, form, comment=comment)
        self.frame_size, self.num_frames = form.frame_size, 0

    def write(self, sound: "Sound") -> None:
        self.writer.write(sound.codes[None])
        self.num_frames += sound.codes.shape[1]

    def finish(self) -> None:
        if self.num_frames:
            self.writer.finish(self.num_frames * self.frame_size)


class _Contained:
    def __init__(
        self, path: str, sample_rate: int, file_format: str, coding: str, comment: str
    ) -> None:
        from audiossm.audio.container import ContainerWriter

        self.path = path
        self.form = {"file_format": file_format, "coding": coding, "comment": comment}
        self.sample_rate = sample_rate
        self.writer: ContainerWriter | None = None
        if not Path(path).absolute().parent.is_dir():
            raise OutputError(f"{path}: can't write there: no such folder")

    def write(self, sound: "Sound") -> None:
        import numpy as np

        from audiossm.audio.container import ContainerWriter

        if not len(sound.samples):
            return
        try:
            if self.writer is None:
                self.writer = ContainerWriter(Path(self.path), self.sample_rate, 1, **self.form)
            self.writer.write(np.clip(sound.samples, -1.0, 1.0)[None])
        except AudioError as exc:
            raise OutputError(f"{self.path}: can't be written: {exc}") from exc
        except OSError as exc:
            raise OutputError(f"{self.path}: can't be written: {exc.strerror or exc}") from exc

    def finish(self) -> None:
        """It ends when it is closed."""

    def close(self) -> None:
        if self.writer is not None:
            try:
                self.writer.close()
            except OSError as exc:
                raise OutputError(f"{self.path}: can't be written: {exc.strerror or exc}") from exc


class _Played:
    def __init__(self, loudspeaker: "Loudspeaker") -> None:
        self.loudspeaker = loudspeaker

    def write(self, sound: "Sound") -> None:
        self.loudspeaker.write(sound.samples)

    def finish(self) -> None:
        pass
