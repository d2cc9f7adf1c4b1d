"""Parity: however a recording is cut, stored or batched, the same tokens come out."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audiossm.audio import resample
from audiossm.decoding import DecodedEndpoint, DecodedToken, DecodedWord
from audiossm.evaluate.conformance import largest_difference
from audiossm.evaluate.machine import describe_machine
from audiossm.evaluate.recording import Recording, read_recording
from audiossm.manifest import Utterance
from audiossm.nn import named_tensors
from audiossm.streaming import Endpoint, Event, Session, Token, Transcriber, Word, step_rows

__all__ = ["STATE_TOLERANCE", "Difference", "Parity", "Variant", "evaluate_parity"]

# largest difference of a final state, relative to the largest value of its tensor, or to 1; most
# lie below 3e-5, but where digital silence begins a network may magnify rounding: with torch's and
# a graph's roundings, the shipped one's last convolution was 1.5e-3 off
STATE_TOLERANCE = 3e-3
BATCH_SIZE = 4
# of the pushes after which the session goes on from its own bytes
SNAPSHOT_SHARE = 0.25


@dataclass(frozen=True)
class Difference:
    """A label frame whose token isn't the reference's; None is no token.

    ``margin`` is what lies between the reference's two best log-probabilities in that frame: a
    small one says that rounding decides there.
    """

    variant: str
    key: str
    frame: int
    expected: str | None
    found: str | None
    margin: float


@dataclass
class Variant:
    """Sums over the utterances that went one way."""

    name: str
    utterances: int = 0
    tokens: int = 0  # the reference's
    differing_tokens: int = 0
    differing_words: int = 0  # another word, or other times; endpoints count as words
    max_confidence_difference: float = 0.0  # of tokens that agree
    max_state_difference: float = 0.0  # relative, see ``STATE_TOLERANCE``
    worst_state: str = ""

    @property
    def passed(self) -> bool:
        """No token and no word differs, and no state is off."""
        return not (self.differing_tokens or self.differing_words) and (
            self.max_state_difference <= STATE_TOLERANCE
        )


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What ``evaluate_parity`` found."""

    variants: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    model: str
    model_hash: str
    lookahead_ms: int
    machine: dict[str, str | int]

    @property
    def passed(self) -> bool:
        """Every variant agrees with the reference."""
        return all(variant.passed for variant in self.variants)

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {
            "passed": self.passed,
            "state_tolerance": STATE_TOLERANCE,
            "model": self.model,
            "model_hash": self.model_hash,
            "lookahead_ms": self.lookahead_ms,
            "machine": self.machine,
            "variants": [asdict(v) | {"passed": v.passed} for v in self.variants],
            "differences": [asdict(difference) for difference in self.differences],
        }


@dataclass(frozen=True)
class Heard:
    """What came out one way: tokens by label frame, words, final states by name."""

    tokens: dict[int, Token | DecodedToken]
    words: list[tuple[str, float, float]]
    state: dict[str, Tensor]


# the sizes that a recording is cut to, from its sample rate
Cut = Callable[[int, random.Random], Iterator[int]]


def cut_every(seconds: float) -> Cut:
    """Cut pieces of one size."""

    def cut(sample_rate: int, rng: random.Random) -> Iterator[int]:
        while True:
            yield round(seconds * sample_rate)

    return cut


def cut_anywhere(sample_rate: int, rng: random.Random) -> Iterator[int]:
    """Cut pieces of 1 sample to 2 s, each order of magnitude as likely."""
    while True:
        yield round(math.exp(rng.uniform(0.0, math.log(2 * sample_rate))))


# name: sizes of the pushes, and how often the session is replaced by its restored bytes
SESSIONS: dict[str, tuple[Cut, float]] = {
    "20 ms": (cut_every(0.02), 0.0),
    "37 ms": (cut_every(0.037), 0.0),
    "1 s": (cut_every(1.0), 0.0),
    "random": (cut_anywhere, 0.0),
    "random, restored": (cut_anywhere, SNAPSHOT_SHARE),
}
BATCHED = "batch mates"


def evaluate_parity(
    transcriber: Transcriber,
    utterances: Sequence[Utterance],
    *,
    lookahead_ms: int = 320,
    seed: int = 0,
    on_utterance: Callable[[], None] | None = None,
) -> Parity:
    """Compare every way through a session with one push of the whole recording.

    Args:
        transcriber: a loaded model.
        utterances: what ``read_manifest`` returned, or a part of it; their texts don't matter.
        lookahead_ms: the model's look-ahead.
        seed: of the random cuts.
        on_utterance: is called after each utterance.

    Raises:
        AudioError: an utterance can't be read.
    """
    rng = random.Random(seed)
    variants = {name: Variant(name) for name in [*SESSIONS, BATCHED]}
    differences: list[Difference] = []
    # dealt out evenly, so that no batch has one row only
    num_batches = math.ceil(len(utterances) / BATCH_SIZE)
    for first in range(num_batches):
        recordings = [read_recording(item) for item in utterances[first::num_batches]]
        batched = run_batch(transcriber, recordings, lookahead_ms, rng)
        for recording, in_batch in zip(recordings, batched, strict=True):
            whole = cut_every(recording.length_s)
            expected = run_session(transcriber, recording, lookahead_ms, whole, 0.0, rng)
            found = {
                name: run_session(transcriber, recording, lookahead_ms, *how, rng)
                for name, how in SESSIONS.items()
            }
            margins: Tensor | None = None
            for name, heard in (found | {BATCHED: in_batch}).items():
                frames = compare(variants[name], expected, heard)
                if frames and margins is None:
                    margins = find_margins(transcriber, recording, lookahead_ms)
                for frame in frames:
                    assert margins is not None
                    wanted, got = (
                        None if token is None else transcriber.vocabulary.pieces[token.id]
                        for token in (expected.tokens.get(frame), heard.tokens.get(frame))
                    )
                    differences.append(
                        Difference(name, recording.key, frame, wanted, got, float(margins[frame]))
                    )
            if on_utterance is not None:
                on_utterance()
    return Parity(
        variants=tuple(variants.values()),
        differences=tuple(differences),
        model=transcriber.name,
        model_hash=transcriber.hash,
        lookahead_ms=lookahead_ms,
        machine=describe_machine(transcriber.device.type),
    )


def run_session(
    transcriber: Transcriber,
    recording: Recording,
    lookahead_ms: int,
    cut: Cut,
    restored: float,
    rng: random.Random,
) -> Heard:
    """Push a recording in pieces, now and then going on from the session's bytes."""
    session = transcriber.session(recording.sample_rate, lookahead_ms)
    events: list[Event] = []
    at, sizes = 0, cut(recording.sample_rate, rng)
    while at < len(recording.samples):
        size = next(sizes)
        events += session.push(recording.samples[at : at + size])
        at += size
        if rng.random() < restored:
            session = Session.restore(transcriber, session.snapshot())
    events += session.finish()
    state = [
        *named_tensors(session.network_state, "network"),
        *named_tensors(session.resample_state, "resampler"),
        *named_tensors(session.buffer_state, "buffer"),
    ]
    return Heard(
        {event.frame: event for event in events if isinstance(event, Token)},
        [
            (event.word, event.start_s, event.end_s)
            if isinstance(event, Word)
            else (event.rule, event.start_s or 0.0, event.end_s or 0.0)
            for event in events
            if isinstance(event, Word | Endpoint)
        ],
        dict(state),
    )


def run_batch(
    transcriber: Transcriber,
    recordings: Sequence[Recording],
    lookahead_ms: int,
    rng: random.Random,
) -> list[Heard]:
    """Step recordings as rows of one batch, each in random blocks of up to a second."""
    network, config = transcriber.network, transcriber.config
    right = transcriber.lookahead_frames(lookahead_ms)
    decoder = transcriber.session(transcriber.sample_rate, lookahead_ms).decoder
    waiting = [prepare(transcriber, recording, right) for recording in recordings]
    states = [network.init_state(1, right) for _ in recordings]
    decoding = [decoder.init_state(right * config.stack) for _ in recordings]
    found: list[list[DecodedToken | DecodedWord | DecodedEndpoint]] = [[] for _ in recordings]
    frames_a_second = transcriber.sample_rate // config.frame_size
    while any(len(row) for row in waiting):
        sizes = [rng.randint(0, frames_a_second) * config.frame_size for _ in waiting]
        rows = [row[:size] for row, size in zip(waiting, sizes, strict=True)]
        waiting = [row[size:] for row, size in zip(waiting, sizes, strict=True)]
        with torch.inference_mode():
            outputs, states = step_rows(network, rows, states)
        for index, log_probs in enumerate(outputs):
            items, decoding[index] = decoder.decode(log_probs, decoding[index])
            found[index] += items
    silence = torch.zeros(transcriber.tail_frames * config.frame_size).to(transcriber.device)
    with torch.inference_mode():
        tails, states = step_rows(network, [silence] * len(recordings), states)
    for items, state, tail in zip(found, decoding, tails, strict=True):
        items += decoder.finish(state, tail)
    return [
        Heard(
            {item.frame: item for item in items if isinstance(item, DecodedToken)},
            [
                name_span(transcriber, item, lookahead_ms, recording.length_s)
                for item in items
                if not isinstance(item, DecodedToken)
            ],
            dict(named_tensors(state, "network")),
        )
        for items, state, recording in zip(found, states, recordings, strict=True)
    ]


def name_span(
    transcriber: Transcriber,
    item: DecodedWord | DecodedEndpoint,
    lookahead_ms: int,
    length_s: float,
) -> tuple[str, float, float]:
    """Return what a session tells of a word, or of an endpoint."""
    name = item.word if isinstance(item, DecodedWord) else item.rule
    if item.end < 0:
        return name, 0.0, 0.0  # an endpoint without words
    by_phones = transcriber.decoder == "phones"
    times = transcriber.word_span(
        item.start, item.end, lookahead_ms, by_phones=by_phones, length_s=length_s
    )
    return name, *times


def prepare(transcriber: Transcriber, recording: Recording, after: int) -> Tensor:
    """Return (samples,) as the network takes a recording: resampled, frames of silence after it."""
    frame = transcriber.config.frame_size
    x = torch.from_numpy(recording.samples).unsqueeze(0)
    x = resample(x, recording.sample_rate, transcriber.sample_rate)[0]
    return F.pad(x, (0, -len(x) % frame + after * frame)).to(transcriber.device)


def find_margins(transcriber: Transcriber, recording: Recording, lookahead_ms: int) -> Tensor:
    """Return (label frames,): the distance between the two best log-probabilities."""
    network, right = transcriber.network, transcriber.lookahead_frames(lookahead_ms)
    x = prepare(transcriber, recording, right + transcriber.tail_frames).unsqueeze(0)
    with torch.inference_mode():
        log_probs, _ = network.step(x, network.init_state(1, right))
    best = log_probs[0, right * transcriber.config.stack :].topk(2, dim=-1).values
    return best[:, 0] - best[:, 1]


def compare(variant: Variant, expected: Heard, found: Heard) -> list[int]:
    """Count into ``variant`` how ``found`` differs; return the label frames whose token does."""
    frames = []
    for frame in sorted(expected.tokens.keys() | found.tokens.keys()):
        wanted, got = expected.tokens.get(frame), found.tokens.get(frame)
        if wanted is None or got is None or wanted.id != got.id:
            frames.append(frame)
        else:
            off = abs(wanted.confidence - got.confidence)
            variant.max_confidence_difference = max(variant.max_confidence_difference, off)
    variant.utterances += 1
    variant.tokens += len(expected.tokens)
    variant.differing_tokens += len(frames)
    variant.differing_words += len(set(expected.words) ^ set(found.words))
    for name, tensor in found.state.items():
        reference = expected.state[name]
        off = largest_difference(name, tensor, reference)
        off /= max(reference.abs().max().item(), 1.0) if reference.numel() else 1.0
        # NaN is worse than anything and compares false
        if not off <= variant.max_state_difference:
            variant.max_state_difference = math.inf if math.isnan(off) else off
            variant.worst_state = name
    return frames
