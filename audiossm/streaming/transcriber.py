"""The recogniser as people use it: files whole, streams as sessions."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from audiossm.audio import open_audio
from audiossm.decoding import DecoderName, EndpointRules, choose_decoder, find_decoder
from audiossm.graphs import Backend
from audiossm.hotwords import HotWord, check_hotwords
from audiossm.models import LoadedRecogniser, LoadedWriter, shipped_writer
from audiossm.streaming.aligner import Alignment, align_recording, align_samples
from audiossm.streaming.files import transcribe_stream
from audiossm.streaming.session import DEFAULT_RULES, Session
from audiossm.streaming.transcript import Transcript, TranscriptDraft

__all__ = ["Transcriber"]


class Transcriber(LoadedRecogniser):
    """A recogniser with its weights: ``Transcriber.load()``, then ``transcribe`` or ``session``."""

    decoder: DecoderName = "greedy"

    @classmethod
    def load(
        cls,
        name: str | Path | None = None,
        *,
        device: str = "cpu",
        decoder: DecoderName | None = None,
        backend: Backend = "auto",
        readable: bool | str | Path = False,
    ) -> Self:
        """Load a shipped model by name (default: the best one) or a model folder.

        Args:
            name: of the model.
            device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
            decoder: how words are chosen; by default ``phones`` for a model with a head for them
                above all layers, otherwise ``beam`` if it spells in letters.
            backend: ``torch``, ``numba``, ``onnx``, or ``auto``, which takes the fastest on a CPU.
            readable: write text as people do, with the shipped writer, if there is one, or with
                one that is named.

        Raises:
            ConfigError: the decoder can't serve the model, or there is no such backend.
            ModelError: there is none, or it is damaged or of another version.
            DeviceError: ``device`` is not here.
        """
        transcriber = super().load(name, device=device, backend=backend)
        transcriber.decoder = decoder or choose_decoder(transcriber.config)
        find_decoder(transcriber, transcriber.decoder)
        writer = shipped_writer() if readable is True else readable or None
        transcriber.writer = LoadedWriter.load(writer) if writer else None
        return transcriber

    def session(
        self,
        sample_rate: int = 16000,
        lookahead_ms: int = 320,
        hotwords: Iterable[str | HotWord] = (),
        endpoints: EndpointRules | None = DEFAULT_RULES,
        nbest: int = 0,
    ) -> Session:
        """Begin a stream of samples at ``sample_rate`` Hz; hot words are written more readily."""
        return Session(
            self,
            sample_rate,
            lookahead_ms,
            self.decoder,
            hotwords,
            self.writer,
            endpoints,
            nbest,
        )

    def transcribe(
        self,
        source: str | Path | BinaryIO,
        *,
        lookahead_ms: int = 320,
        hotwords: Iterable[str | HotWord] = (),
        endpoints: EndpointRules | None = DEFAULT_RULES,
        nbest: int = 0,
    ) -> Transcript:
        """Transcribe a recording; channels are mixed. Memory doesn't grow with its length.

        Args:
            source: a path, ``"-"`` for standard input, or an open binary file.
            lookahead_ms: one of ``lookaheads_ms``.
            hotwords: words and phrases that are written more readily: names, terms.
            endpoints: when a segment ends.
            nbest: how many alternatives the transcript, and each segment, has.

        Raises:
            AudioError: the recording can't be read (to its end).
            ConfigError: the decoder is ``greedy``, which can't weigh hot words, or ``nbest`` is
                below 0.
            HotwordError: a hot word isn't one.
        """
        seen, hotwords = 0, check_hotwords(hotwords)

        def count(samples: int) -> None:
            nonlocal seen
            seen += samples

        with open_audio(source) as reader:
            rate = reader.sample_rate
            draft = TranscriptDraft(self.writer is not None, nbest)
            for event in transcribe_stream(
                reader,
                lambda: self.session(rate, lookahead_ms, hotwords, endpoints, nbest),
                on_block=count,
            ):
                draft.add(event)
        return draft.build(seen / rate, self.name)

    def align(
        self,
        source: str | Path | BinaryIO | NDArray[np.float32],
        text: str,
        *,
        sample_rate: int = 16000,
        lookahead_ms: int = 320,
        phones: bool = True,
    ) -> Alignment:
        """Find when each word of ``text``, and each phone if the model has them, was said.

        Args:
            source: a path, ``"-"`` for standard input, an open binary file, or samples (samples,)
                float32 in [-1, 1].
            text: all that is said, as people write.
            sample_rate: Hz, of samples.
            lookahead_ms: one of ``lookaheads_ms``.
            phones: with False, words are timed by their letters alone.

        Raises:
            AlignmentError: the text has no words, or the audio is too short for it.
            AudioError: the recording can't be read (to its end).
        """
        if isinstance(source, np.ndarray):
            return align_samples(
                self,
                source,
                text,
                sample_rate=sample_rate,
                lookahead_ms=lookahead_ms,
                phones=phones,
            )
        return align_recording(self, source, text, lookahead_ms=lookahead_ms, phones=phones)
