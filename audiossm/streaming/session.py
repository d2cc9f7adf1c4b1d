"""One stream from samples to words, whose whole state is a value."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from audiossm.audio import FrameBuffer, Resampler
from audiossm.audio.samples import check_samples
from audiossm.decoding import (
    DecodedEndpoint,
    DecodedToken,
    DecodedWord,
    DecoderName,
    EndpointRules,
    Segmenter,
    SegmentState,
    find_decoder,
)
from audiossm.errors import AudioError, ConfigError, HotwordError, SessionError, SnapshotError
from audiossm.graphs import Stepper
from audiossm.hotwords import HotWord, check_hotwords
from audiossm.models import LoadedRecogniser, LoadedWriter, RecogniserState
from audiossm.streaming.events import Endpoint, Event, Token, Word
from audiossm.streaming.scribe import Scribe, pack_words, unpack_words
from audiossm.streaming.snapshot import check_arrays, fill_state, pack, state_arrays, unpack

__all__ = ["Session"]

# one step takes this much audio at most, so that a long push needs no more memory than a short one
MAX_STEP_S = 30
DEFAULT_RULES = EndpointRules()


class Session:
    """A stream of speech on its way to words.

    The words are a function of the samples and of the positions of flushes and of new hot words
    alone: not of how the samples were cut into pushes, nor of snapshots in between. By torch, and
    by graphs of several frames, another cut rounds otherwise, which tells only where two labels are
    that near. A session isn't thread safe; several sessions of one transcriber may run in
    several threads.

    Args:
        transcriber: the model.
        sample_rate: of the samples to come, in Hz.
        lookahead_ms: how long a label waits for the future; one of the model's choices.
        decoder: how words are chosen.
        hotwords: words and phrases that are written more readily, if the decoder is ``beam``.
        writer: tells each word once more, as people write it, some words later.
        endpoints: when a segment ends; with None it does at flushes and at the end only.
        nbest: how many readings of its last words an ``Endpoint`` has.

    Raises:
        ConfigError: no such look-ahead or decoder, one that can't weigh hot words, or ``nbest`` is
            below 0.
        HotwordError: a hot word isn't one.
    """

    def __init__(
        self,
        transcriber: LoadedRecogniser,
        sample_rate: int = 16000,
        lookahead_ms: int = 320,
        decoder: DecoderName = "greedy",
        hotwords: Iterable[str | HotWord] = (),
        writer: LoadedWriter | None = None,
        endpoints: EndpointRules | None = DEFAULT_RULES,
        nbest: int = 0,
    ) -> None:
        self.transcriber = transcriber
        self.sample_rate, self.lookahead_ms = sample_rate, lookahead_ms
        network, config = transcriber.network, transcriber.network.config
        right = transcriber.lookahead_frames(lookahead_ms)
        self.late_samples = right * config.frame_size
        self.tail_samples = transcriber.tail_frames * config.frame_size
        self.decoder_name = decoder
        self.hotwords = check_hotwords(hotwords)
        self.endpoints, self.nbest = endpoints, nbest
        self.decoder = Segmenter(
            find_decoder(transcriber, decoder).with_hotwords(self.hotwords),
            endpoints,
            transcriber.label_frame_s,
            transcriber.vocabulary,
            nbest,
        )
        self.resampler = Resampler(sample_rate, transcriber.sample_rate)
        self.buffer = FrameBuffer(config.frame_size)
        self.resample_state = self.resampler.init_state(1)
        self.buffer_state = self.buffer.init_state(1)
        self.stepper = Stepper(
            transcriber.ways, network.init_state(1, right), seats=transcriber.seats
        )
        self.decoder_state = self.decoder.init_state(right * config.stack)
        self.scribe = None if writer is None else Scribe(writer)
        self.scribe_state = None if self.scribe is None else self.scribe.init_state()
        self.samples_received = 0
        self.frames_taken = 0  # label frames of the samples, silence after them not counted
        self.finished = False
        self.length_s = math.inf  # of the recording, once it has ended

    def push(self, samples: NDArray[np.float32]) -> list[Event]:
        """Take the next samples and tell what became final by them.

        Args:
            samples: (samples,) float32 in [-1, 1] at the session's rate; may be empty.

        Raises:
            AudioError: not one channel of float samples, or one of them is not finite or beyond
                ``LOUDEST``; the session is as before.
            SessionError: the session is finished, or its state is spoiled.
        """
        self._check_open()
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise AudioError(
                f"a session takes one channel of float samples, got {samples.dtype} of shape "
                f"{samples.shape}"
            )
        check_samples(samples, self.samples_received, self.sample_rate)
        self.samples_received += len(samples)
        x = torch.from_numpy(samples.astype(np.float32)).unsqueeze(0)
        events: list[Event] = []
        longest = MAX_STEP_S * self.sample_rate
        for at in range(0, x.shape[1], longest):
            y, self.resample_state = self.resampler.step(
                x[:, at : at + longest], self.resample_state
            )
            events += self._take(y)
        return events

    def set_hotwords(self, hotwords: Iterable[str | HotWord]) -> None:
        """Have these hot words instead, or none, from the next frame on.

        A phrase may begin with the word that is being said. What was told stays as it is.

        Raises:
            ConfigError: the decoder can't weigh hot words; the session is as before.
            HotwordError: one of them isn't one; the session is as before.
            SessionError: the session is finished.
        """
        self._check_open()
        checked = check_hotwords(hotwords)
        self.decoder = self.decoder.with_hotwords(checked)
        self.hotwords = checked
        self.decoder_state = self.decoder.adopt(self.decoder_state)

    def flush(self) -> list[Event]:
        """Tell all that can be told of the samples so far, without waiting for the look-ahead.

        A fork of the session runs to its end; what it finds is final, and this session leaves it
        out later. What follows goes on from the unflushed state; written text goes on from its end.
        """
        self._check_open()
        fork = self.fork()
        events = fork.finish()
        end = fork.frames_taken
        if any(isinstance(event, Token) and event.frame >= end for event in events):
            # this session will hear it, too, a little earlier or later
            end += self.tail_samples // self.transcriber.config.encoder.frame_size
        self.decoder_state = self.decoder.skip_to(end, self.decoder_state)
        self.scribe_state = fork.scribe_state
        return events

    def finish(self) -> list[Event]:
        """Tell the rest and end the session.

        Silence follows: as much as the look-ahead needs, and then some in which only words that
        were said before are heard.
        """
        self._check_open()
        events = self._take(self.resampler.finish(self.resample_state))
        rest = self.buffer.finish(self.buffer_state)
        if rest.shape[1]:
            events += self._advance(rest)
        self.length_s = self.samples_received / self.sample_rate
        tail, silence = None, self.late_samples + self.tail_samples
        if self.frames_taken and silence:
            log_probs = self._hear(torch.zeros(1, silence))
            late = self.late_samples // self.transcriber.config.encoder.frame_size
            found, self.decoder_state = self.decoder.decode(log_probs[:late], self.decoder_state)
            events += self._events(found)
            tail = log_probs[late:]
        self.finished = True
        events += self._events(self.decoder.finish(self.decoder_state, tail))
        if self.scribe is not None and self.scribe_state is not None:
            written, self.scribe_state = self.scribe.flush(self.scribe_state)
            events += written
        return events

    @property
    def network_state(self) -> RecogniserState:
        """The network's state, turned back: equal streams have equal ones, but for roundings."""
        return self.stepper.ways.step.settle(self.stepper.state)

    @network_state.setter
    def network_state(self, state: RecogniserState) -> None:
        self.stepper.state = state

    @property
    def profile(self) -> str:
        """Which arithmetic made the state: a snapshot names it."""
        return self.stepper.profile

    @property
    def partial(self) -> str:
        """What was heard and isn't told yet; it may change."""
        return self.decoder.partial(self.decoder_state)

    @property
    def unwritten(self) -> tuple[Word, ...]:
        """The words that were told, but not yet as people write them."""
        if self.scribe_state is None:
            return ()
        return (*(word for word, _ in self.scribe_state.marked), *self.scribe_state.waiting)

    @property
    def writer(self) -> LoadedWriter | None:
        """What writes the words, if anything does."""
        return None if self.scribe is None else self.scribe.writer

    def fork(self) -> "Session":
        """Return a second session that goes on from here; neither disturbs the other."""
        fork = Session(
            self.transcriber,
            self.sample_rate,
            self.lookahead_ms,
            self.decoder_name,
            endpoints=self.endpoints,
            nbest=self.nbest,
        )
        fork.scribe, fork.scribe_state = self.scribe, self.scribe_state
        fork.hotwords, fork.decoder = self.hotwords, self.decoder
        # states are values: nothing ever writes into them, so they can be shared
        fork.resample_state, fork.buffer_state = self.resample_state, self.buffer_state
        fork.stepper, fork.decoder_state = self.stepper.fork(), self.decoder_state
        fork.samples_received, fork.frames_taken = self.samples_received, self.frames_taken
        fork.finished = self.finished
        return fork

    def snapshot(self) -> bytes:
        """Return the session as bytes that ``restore`` goes on from, exactly."""
        return pack(
            self._arrays(),
            identity(self.transcriber)
            | {"profile": self.profile}
            | {"sample_rate": str(self.sample_rate), "lookahead_ms": str(self.lookahead_ms)}
            | {"decoder": self.decoder_name, "decoder_hash": self.decoder.hash}
            | {"hotwords": json.dumps([(word.phrase, word.weight) for word in self.hotwords])}
            | {"endpoints": json.dumps(self.endpoints and vars(self.endpoints))}
            | {"nbest": str(self.nbest)}
            | self._writing(),
        )

    def _writing(self) -> dict[str, str]:
        """What a snapshot's header says of written text."""
        if self.scribe is None or self.scribe_state is None:
            return {}
        words = json.dumps(pack_words(self.scribe_state))
        return {"writer": self.scribe.writer.hash, "writing": words}

    @classmethod
    def restore(
        cls, transcriber: LoadedRecogniser, data: bytes, *, same_numerics: bool = False
    ) -> "Session":
        """Go on from ``snapshot`` bytes, in this process or another.

        A session that writes needs the transcriber to have the same writer. The state moves between
        numerics profiles, such as torch and graphs: that is logged.

        Args:
            transcriber: the model.
            data: the snapshot.
            same_numerics: where the backend is ``auto``, take the one that the session had, rather
                than choose anew by the size of the next push: rounding is then the same, too.

        Raises:
            SnapshotError: not a session, or one of another model, writer or version.
        """
        arrays, header = unpack(data, identity(transcriber))
        writer = transcriber.writer if "writer" in header else None
        if header.get("writer") != (None if writer is None else writer.hash):
            raise SnapshotError(
                "the snapshot's text was written by another writer than there is: it can't go on"
            )
        try:
            rate, lookahead_ms = int(header["sample_rate"]), int(header["lookahead_ms"])
            hotwords = [
                HotWord(phrase, weight) for phrase, weight in json.loads(header["hotwords"])
            ]
            decoder = cast(DecoderName, header["decoder"])
            rules = json.loads(header["endpoints"])
            endpoints = None if rules is None else EndpointRules(**rules)
            nbest = int(header["nbest"])
            session = cls(
                transcriber, rate, lookahead_ms, decoder, hotwords, writer, endpoints, nbest
            )
            words = json.loads(header["writing"]) if writer else None
            profile = header["profile"]
        except (
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
            AudioError,
            ConfigError,
            HotwordError,
        ) as exc:
            raise SnapshotError(f"the snapshot's header is damaged ({exc!r})") from exc
        if header.get("decoder_hash") != session.decoder.hash:
            raise SnapshotError(
                f"the snapshot's decoder {session.decoder_name!r} had another language model or "
                "other weights than this one: it can't go on"
            )
        session._load(arrays)
        if session.scribe_state is not None:
            session.scribe_state = unpack_words(words, session.scribe_state.network)
        if same_numerics and session.frames_taken:  # before, no arithmetic made anything
            session.stepper.stay_with(profile)
        session.stepper.come_from(profile)
        return session

    def _load(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Fill a fresh session with a snapshot's arrays."""
        check_arrays(arrays, self._arrays())
        self.resample_state = fill_state(self.resample_state, "resampler", arrays)
        self.buffer_state = fill_state(self.buffer_state, "buffer", arrays)
        self.network_state = fill_state(self.stepper.state, "network", arrays)
        inner = self.decoder_state.decoder
        self.decoder_state = SegmentState(
            inner._make(arrays[f"decoder.{name}"] for name in inner._fields),
            cast(NDArray[np.int64], arrays["segment"]),
        )
        if self.scribe_state is not None:
            network = fill_state(self.scribe_state.network, "writer", arrays)
            self.scribe_state = self.scribe_state._replace(network=network)
        counters = arrays["counters"].tolist()
        self.samples_received, self.frames_taken = counters[0], counters[1]
        self.finished = bool(counters[2])

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        """Name every array that a snapshot stores."""
        counters = [self.samples_received, self.frames_taken, int(self.finished)]
        scribe = self.scribe_state
        return {
            **({} if scribe is None else state_arrays(scribe.network, "writer")),
            **state_arrays(self.resample_state, "resampler"),
            **state_arrays(self.buffer_state, "buffer"),
            **state_arrays(self.stepper.state, "network"),
            **{f"decoder.{name}": a for name, a in self.decoder_state.decoder._asdict().items()},
            "segment": self.decoder_state.marks,
            "counters": np.array(counters, np.int64),
        }

    def _check_open(self) -> None:
        if self.finished:
            raise SessionError("this session is finished: begin another one")

    def _take(self, samples: torch.Tensor) -> list[Event]:
        """Buffer samples (1, samples) at the model's rate and advance by the whole frames."""
        frames, self.buffer_state = self.buffer.step(samples, self.buffer_state)
        return self._advance(frames) if frames.shape[1] else []

    def _advance(self, samples: torch.Tensor) -> list[Event]:
        """Step the network over whole frames and decode."""
        log_probs = self._hear(samples)
        self.frames_taken += samples.shape[1] // self.transcriber.config.encoder.frame_size
        found, self.decoder_state = self.decoder.decode(log_probs, self.decoder_state)
        return self._events(found)

    def _hear(self, samples: torch.Tensor) -> torch.Tensor:
        """Step the network over whole frames; return log-probabilities (label frames, symbols)."""
        log_probs = torch.cat(self.stepper.step(samples), dim=-1)[0]
        if not bool(torch.isfinite(log_probs).all()):
            raise SessionError(
                "the network says what is no number: this session's state is spoiled"
            )
        return log_probs

    def _events(self, found: Sequence[DecodedToken | DecodedWord | DecodedEndpoint]) -> list[Event]:
        symbols = self.decoder.symbols
        events: list[Event] = []
        for item in found:
            if isinstance(item, DecodedToken):
                events.append(Token(item.id, symbols[item.id], item.frame, item.confidence))
                continue
            if isinstance(item, DecodedEndpoint):
                events += self._end_segment(item)
                continue
            times = self._span(item.start, item.end)
            word = Word(item.word, *times, item.confidence)
            events.append(word)
            if self.scribe is not None and self.scribe_state is not None:
                written, self.scribe_state = self.scribe.write(word, self.scribe_state)
                events += written
        return events

    def _span(self, start: int, end: int) -> tuple[float, float]:
        """Turn the label frames of a word into seconds."""
        return self.transcriber.word_span(
            start,
            end,
            self.lookahead_ms,
            by_phones=self.decoder_name == "phones",
            length_s=self.length_s,
        )

    def _end_segment(self, item: DecodedEndpoint) -> list[Event]:
        """Write what isn't written yet, and tell the endpoint."""
        events: list[Event] = []
        if self.scribe is not None and self.scribe_state is not None:
            written, self.scribe_state = self.scribe.flush(self.scribe_state)
            events += written
        start_s = end_s = None
        # a word that began here would be heard in the next label frame
        span = self.transcriber.word_span
        time_s = span(item.frame, item.frame + 1, self.lookahead_ms)[0]
        if item.rule == "end":
            time_s = self.samples_received / self.sample_rate
        if item.end >= 0:
            start_s, end_s = self._span(item.start, item.end)
            time_s = max(time_s, end_s)
        events.append(Endpoint(item.rule, time_s, start_s, end_s, item.readings))
        return events


def identity(transcriber: LoadedRecogniser) -> dict[str, str]:
    """What must agree before a session goes on from a snapshot."""
    return {"model": transcriber.hash}
