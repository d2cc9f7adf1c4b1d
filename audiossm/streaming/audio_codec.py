"""The codec as people use it: files whole, streams as sessions."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from audiossm.audio import open_audio
from audiossm.codec import Codes, LoadedCodec
from audiossm.streaming.code_files import FRAMES_PER_STEP, encode_stream
from audiossm.streaming.coding import DecoderSession, EncoderSession

__all__ = ["AudioCodec"]


class AudioCodec(LoadedCodec):
    """A codec with its weights: ``AudioCodec.load()``, then ``encode`` and ``decode``, or sessions.

    What comes out is as long as what went in, to the sample at the codec's rate, and in time with
    it. Channels are coded each for itself.
    """

    def encoder_session(
        self,
        *,
        sample_rate: int = 16000,
        channels: int = 1,
        num_groups: int | None = None,
        frames_per_step: int = 1,
    ) -> EncoderSession:
        """Begin a stream of samples at ``sample_rate`` Hz; see ``EncoderSession``."""
        return EncoderSession(
            self,
            sample_rate=sample_rate,
            channels=channels,
            num_groups=num_groups,
            frames_per_step=frames_per_step,
        )

    def decoder_session(self, *, channels: int = 1, frames_per_step: int = 1) -> DecoderSession:
        """Begin a stream of codes; see ``DecoderSession``."""
        return DecoderSession(self, channels=channels, frames_per_step=frames_per_step)

    def encode(
        self,
        source: str | Path | BinaryIO | NDArray[np.float32],
        *,
        sample_rate: int = 16000,
        num_groups: int | None = None,
    ) -> Codes:
        """Encode a recording of any rate, or several of one length as rows.

        Args:
            source: a path, ``"-"`` for standard input, an open binary file, or samples (channels,
                samples) float32 in [-1, 1].
            sample_rate: Hz, of samples.
            num_groups: how many groups of codes, the first ones, to give; all by default.

        Raises:
            AudioError: the recording can't be read (to its end).
            ConfigError: the codec hasn't as many groups.
        """
        if isinstance(source, np.ndarray):
            session = self.encoder_session(
                sample_rate=sample_rate,
                channels=len(source) if source.ndim == 2 else 1,  # push refuses others
                num_groups=num_groups,
                frames_per_step=FRAMES_PER_STEP,
            )
            pieces = [session.push(source), session.finish()]
        else:
            with open_audio(source) as reader:
                session = self.encoder_session(
                    sample_rate=reader.sample_rate,
                    channels=reader.channels,
                    num_groups=num_groups,
                    frames_per_step=FRAMES_PER_STEP,
                )
                pieces = list(encode_stream(reader, session))
        return Codes(
            form=self.describe(channels=session.channels, num_groups=num_groups),
            codes=np.concatenate(pieces, axis=2),
            num_samples=session.num_samples,
        )

    def decode(self, codes: Codes, *, num_groups: int | None = None) -> NDArray[np.float32]:
        """Decode a recording, from its first ``num_groups`` groups or from all that it has.

        Returns:
            (channels, samples) at the codec's rate, about in [-1, 1].

        Raises:
            ModelError: another codec made them.
            ShapeError: codes that there aren't.
        """
        self.check_codes(codes.form)
        session = self.decoder_session(
            channels=codes.form.channels, frames_per_step=FRAMES_PER_STEP
        )
        pieces = [session.push(codes.codes[:, :num_groups]), session.finish()]
        return np.concatenate(pieces, axis=1)[:, : codes.num_samples]
