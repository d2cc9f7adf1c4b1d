"""Opus as it comes over a wire: bytes of Ogg or WebM, cut anywhere, to samples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiossm.audio.media import load_av
from audiossm.audio.packets import RATE, Batch, PacketReader, find_reader, num_packet_samples
from audiossm.errors import AudioError

__all__ = ["PREROLL_S", "OpusStream"]

Samples = NDArray[np.float32]

# after so much a decoder that began in the middle sounds as one that didn't (RFC 7845, 4.6)
PREROLL_S = 0.08


class OpusStream:
    """A decoder for one stream of Opus, in mono, at ``sample_rate`` (48000 Hz).

    Args:
        position: 0 begins a stream, whatever its time stamps are. Otherwise it goes on with one
            whose stamps began at 0: the container begins again with its headers, then come packets
            from before sample ``position`` on, ``PREROLL_S`` or more, and what lies before it is
            left out. A decoder that begins in the middle is near the other one, not equal to it;
            WebM's stamps are rounded to a millisecond, and some writers' begin at a few of them.

    Raises:
        DependencyError: PyAV is not installed.
    """

    sample_rate = RATE

    def __init__(self, position: int = 0) -> None:
        self._av = load_av("Opus needs PyAV, which is not installed: pip install 'audiossm[media]'")
        self._target = position
        self._position: int | None = None  # of the next decoded sample; below 0 is skipped
        self._reader: PacketReader | None = None
        self._begin = b""
        self._decoder: Any = None
        self._ended = False
        self._offset = 0  # of time stamps that don't begin at 0

    def push(self, data: bytes) -> Iterator[Samples]:
        """Yield samples (samples,) float32 of a second at most, as far as packets are whole.

        Raises:
            AudioError: damage, no Opus, or packets that begin after the position.
        """
        if self._reader is None:
            self._begin += data
            self._reader = find_reader(self._begin)
            if self._reader is None:
                return
            data, self._begin = self._begin, b""
        for batch in self._reader.push(data):
            yield from self._decode(batch)

    def _decode(self, batch: Batch) -> Iterator[Samples]:
        if self._decoder is None:
            self._open()
        if self._ended and batch.packets:
            raise AudioError("Opus goes on after its end")
        counts = [num_packet_samples(packet) for packet in batch.packets]
        if self._position is None:
            if not counts:
                return
            self._position = self._place(batch, sum(counts))
        stop = None
        if batch.last:
            self._ended = True
            if batch.end is not None:
                stop = batch.end - self._preskip - self._offset
        for packet, count in zip(batch.packets, counts, strict=True):
            samples = self._decode_packet(packet, count)
            begin, self._position = self._position, self._position + count
            skip = min(count, max(0, self._target - begin))
            keep = count if stop is None else max(skip, min(count, stop - begin))
            if keep > skip:
                yield samples[skip:keep]

    def _open(self) -> None:
        """Make the decoder, now that the header came."""
        assert self._reader is not None
        head = self._reader.head or b""
        if len(head) < 19 or head[:8] != b"OpusHead" or head[8] >> 4 or head[9] not in (1, 2):
            raise AudioError("the Opus header isn't one of mono or stereo")
        self._preskip = int.from_bytes(head[10:12], "little")
        self._gain = 10 ** (int.from_bytes(head[16:18], "little", signed=True) / (20 * 256))
        try:
            decoder = self._av.CodecContext.create("libopus", "r")
        except self._av.codec.codec.UnknownCodecError:
            decoder = self._av.CodecContext.create("opus", "r")
        # what is skipped at the begin, and louder or softer, is done here
        decoder.extradata = head[:10] + b"\0\0" + head[12:16] + b"\0\0\0"
        self._decoder = decoder

    def _place(self, batch: Batch, num_samples: int) -> int:
        """Return where the first decoded sample stands."""
        begin = batch.begin
        if begin is None and batch.end is not None:
            begin = batch.end if batch.last else batch.end - num_samples
        if self._target == 0:
            self._offset = 0 if batch.last or begin is None else begin
            return -self._preskip
        if begin is None:
            raise AudioError("Opus without time stamps: nobody knows where it goes on")
        position = begin - self._preskip
        if position > self._target:
            raise AudioError(
                f"the packets begin at sample {position}, but the stream stands at {self._target}"
            )
        return position

    def _decode_packet(self, packet: bytes, count: int) -> Samples:
        av = self._av
        try:
            frames = self._decoder.decode(av.Packet(packet))
        except (av.FFmpegError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise AudioError(f"a packet of Opus can't be decoded ({reason})") from exc
        parts = [np.zeros(0, np.float32)]
        for frame in frames:
            sound = frame.to_ndarray()
            if not frame.format.is_planar:
                sound = sound.reshape(-1, len(frame.layout.channels)).T
            if sound.dtype.kind == "i":
                sound = sound / np.float32(32768)
            parts.append(sound.mean(axis=0, dtype=np.float32))
        samples = np.concatenate(parts).astype(np.float32) * np.float32(self._gain)
        if len(samples) != count:
            raise AudioError(f"a packet of Opus has {len(samples)} samples, but says {count}")
        return samples
