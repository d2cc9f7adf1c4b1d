"""Samples to Opus in Ogg, page by page, as it goes over a wire."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio.media import load_av
from audiossm.audio.ogg import make_page
from audiossm.audio.packets import RATE
from audiossm.audio.resample import Resampler
from audiossm.errors import AudioError

__all__ = ["OpusPage", "OpusWriter"]

Samples = NDArray[np.float32]

RATES = (8000, 12000, 16000, 24000, 48000)  # Hz, that an encoder takes; others are resampled
PACKETS_A_S = 50
PAGE_PACKETS = 5  # a page is 0.1 s
SERIAL = 1
VENDOR = b"audiossm"


class OpusPage(NamedTuple):
    """A page, and by how many samples (at 48000 Hz) a decoder is farther after it."""

    data: bytes
    num_samples: int


class OpusWriter:
    """An encoder for one stream of Opus, in mono; the same pages however the samples are cut.

    A decoder gets as many samples as were written, once all pages came. Until then it is behind by
    the packet (20 ms) and the page that are being filled, and by the encoder's own delay (6.5 ms).

    Args:
        sample_rate: of the samples, Hz.
        bit_rate: bits a second, about.

    Attributes:
        head: bytes that the container begins with.

    Raises:
        AudioError: no such rate, or the encoder refuses it.
        DependencyError: PyAV is not installed.
    """

    def __init__(self, sample_rate: int, bit_rate: int = 32000) -> None:
        av = load_av("Opus needs PyAV, which is not installed: pip install 'audiossm[media]'")
        self._av = av
        rate = sample_rate if sample_rate in RATES else RATE
        self._resampler = Resampler(sample_rate, rate)
        self._state = self._resampler.init_state(1)
        self._rate, self._frame = rate, rate // PACKETS_A_S
        self._encoder: Any = av.CodecContext.create("libopus", "w")
        self._encoder.sample_rate, self._encoder.bit_rate = rate, bit_rate
        self._encoder.format, self._encoder.layout = "flt", "mono"
        self._encoder.options = {"application": "audio", "frame_duration": "20"}
        try:
            self._encoder.open()
        except av.FFmpegError as exc:
            raise AudioError(f"Opus can't be made of {sample_rate} Hz at {bit_rate} bit/s") from exc
        opus_head = bytes(self._encoder.extradata)
        self._preskip = int.from_bytes(opus_head[10:12], "little")
        tags = b"OpusTags" + len(VENDOR).to_bytes(4, "little") + VENDOR + bytes(4)
        self.head = make_page([opus_head], 0, 0, SERIAL) + make_page([tags], 0, 1, SERIAL)
        self._waiting = np.zeros(0, np.float32)
        self._packets: list[bytes] = []  # of the next page
        self._num_pages, self._num_packets = 2, 0
        self._taken = 0  # samples at the encoder's rate
        self._told = 0  # samples that a decoder of all pages has

    def push(self, samples: Samples) -> list[OpusPage]:
        """Take samples (samples,) in [-1, 1]; return the pages that they fill."""
        row = torch.from_numpy(np.require(samples, np.float32, ("C", "W"))).unsqueeze(0)
        made, self._state = self._resampler.step(row, self._state)
        return self._encode(made[0].numpy())

    def cut(self) -> list[OpusPage]:
        """Return what packets there are as a page, if there are any."""
        return [self._close_page()] if self._packets else []

    def finish(self) -> list[OpusPage]:
        """Return the rest; nothing may be written after it."""
        row = self._resampler.finish(self._state)
        pages = self._encode(row[0].numpy())
        if not self._taken:
            return pages
        # a page of its own, so that who resumes before its end finds one before it that says where
        pages += self.cut()
        total = self._taken * (RATE // self._rate)
        missing = total + self._preskip - self._num_packets * self._per_packet
        for _ in range(-(-missing // self._per_packet)):
            frame = np.zeros(self._frame, np.float32)
            frame[: len(self._waiting)] = self._waiting
            self._waiting = self._waiting[:0]
            self._add_packet(frame)
        return [*pages, self._close_page(total)]

    @property
    def _per_packet(self) -> int:
        return RATE // PACKETS_A_S

    def _encode(self, samples: Samples) -> list[OpusPage]:
        self._taken += len(samples)
        waiting, size, pages = np.concatenate([self._waiting, samples]), self._frame, []
        whole = len(waiting) // size * size
        for at in range(0, whole, size):
            self._add_packet(waiting[at : at + size])
            if len(self._packets) == PAGE_PACKETS:
                pages.append(self._close_page())
        self._waiting = waiting[whole:].copy()
        return pages

    def _add_packet(self, samples: Samples) -> None:
        frame = self._av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._rate
        (packet,) = self._encoder.encode(frame)
        self._packets.append(bytes(packet))
        self._num_packets += 1

    def _close_page(self, total: int | None = None) -> OpusPage:
        """Make a page of the packets; ``total`` samples are all there are, if it is the last."""
        last = total is not None
        end = self._num_packets * self._per_packet
        if total is not None:
            end = total + self._preskip
        page = make_page(self._packets, end, self._num_pages, SERIAL, last=last)
        self._packets, self._num_pages = [], self._num_pages + 1
        told = max(0, end - self._preskip)
        self._told, before = told, self._told
        return OpusPage(page, told - before)
