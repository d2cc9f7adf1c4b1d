"""Opus that is written page by page: others read it, and one can begin at any page."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.audio.ogg import find_ogg_damage
from audiossm.audio.opus import PREROLL_S, OpusStream
from audiossm.audio.opus_writer import OpusPage, OpusWriter
from audiossm.errors import AudioError
from tiny_model import read_speech

pytest.importorskip("av")
SPEECH = read_speech()[:40000]
few = settings(max_examples=20, deadline=None, derandomize=True)


def write(samples: np.ndarray, rate: int, sizes: list[int]) -> tuple[bytes, list[OpusPage]]:
    writer, pages, at = OpusWriter(rate), [], 0
    for size in [*sizes, len(samples)]:
        pages += writer.push(samples[at : at + size])
        at += size
    return writer.head, pages + writer.finish()


def join(head: bytes, pages: list[OpusPage]) -> bytes:
    return head + b"".join(page.data for page in pages)


def decode(data: bytes, position: int = 0) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *OpusStream(position).push(data)])


@few
@given(
    rate=st.sampled_from([8000, 11025, 16000, 44100, 48000]),
    length=st.integers(0, 12000),
    sizes=st.lists(st.integers(0, 3000), max_size=6),
)
def test_any_cuts_give_the_same_pages_and_all_samples(rate, length, sizes):
    head, pages = write(SPEECH[:length], rate, sizes)
    assert (head, pages) == write(SPEECH[:length], rate, [])
    num_samples = sum(page.num_samples for page in pages)
    assert abs(num_samples - length * 48000 / rate) < 1
    if length:
        assert len(decode(join(head, pages))) == num_samples
        assert find_ogg_damage(io.BytesIO(join(head, pages))) is None
    else:
        assert pages == []


def test_libsndfile_reads_the_same_and_it_sounds_like_what_was_written():
    data = join(*write(SPEECH, 16000, []))
    decoded, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 16000 and len(decoded) == len(SPEECH)
    assert np.corrcoef(decoded, SPEECH)[0, 1] > 0.95  # also: nothing is shifted
    assert np.corrcoef(decoded, decode(data)[::3])[0, 1] > 0.99
    assert len(data) * 8 / (len(SPEECH) / 16000) < 40_000


def test_each_page_says_how_far_a_decoder_is_after_it():
    head, pages = write(SPEECH, 16000, [7000, 1])
    stream = OpusStream()
    list(stream.push(head))
    for page in pages:
        assert sum(len(part) for part in stream.push(page.data)) == page.num_samples


def test_one_can_begin_at_any_page_80_ms_before():
    head, pages = write(SPEECH, 16000, [])
    whole = decode(join(head, pages))
    ends = np.cumsum([page.num_samples for page in pages])
    for position in [*ends[:-1].tolist(), *range(1, len(whole), 7001), len(whole)]:
        first = int(np.searchsorted(ends, position - PREROLL_S * 48000, side="right"))
        rest = decode(join(head, pages[first:]), position)
        assert len(rest) == len(whole) - position
        if len(rest) > 4800:  # near it, not equal: the decoder began anew
            assert np.corrcoef(rest, whole[position:])[0, 1] > 0.9


def test_a_page_is_cut_where_it_is_asked_for():
    writer = OpusWriter(16000)
    assert writer.cut() == [] and writer.push(SPEECH[:400]) == []
    (page,) = writer.cut()
    assert page.num_samples == 960 - 312 and writer.cut() == []


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(AudioError, match="sample rate 5 Hz"):
        OpusWriter(5)
