"""Numbered events: the same after a crash, forgotten when confirmed, undone by a rewind."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.errors import SessionError, SnapshotError
from audiossm.nn import map_state
from audiossm.streaming import Endpoint, Session, Word
from audiossm.streaming.stream import Finished, Flushed, News, Refused, Rewound, Stream
from tiny_model import make_transcriber, read_speech

MODEL = make_transcriber()
SPEECH = read_speech()[:40000]

few = settings(max_examples=8, deadline=None, derandomize=True)
places = st.integers(0, len(SPEECH))


def begin(keep_s: float = 0.0, rate: int = 16000) -> Stream:
    return Stream(MODEL.session(rate), keep_s)


def bare(news: list[News]) -> list[object]:
    """All but probabilities, which are as near as float32 sums are."""
    return [
        (item.seq, item.event.word, item.event.start_s)
        if isinstance(item.event, Word)
        else (item.seq, item.event)
        for item in news
    ]


def test_events_are_numbered_from_one_and_the_last_says_that_it_is_the_end():
    stream = begin()
    news = stream.push(SPEECH) + stream.flush() + stream.finish()
    assert [item.seq for item in news] == list(range(1, len(news) + 1))
    assert len([item for item in news if isinstance(item.event, Word)]) > 5
    assert Flushed(len(SPEECH)) in [item.event for item in news]
    assert news[-1].event == Finished(len(SPEECH))
    assert list(stream.unconfirmed) == news
    with pytest.raises(SessionError, match="finished"):
        stream.push(SPEECH)


controls = st.tuples(places, st.one_of(st.none(), st.integers(0, 30000)))  # a flush, or a rewind


@few
@given(crashes=st.lists(places, max_size=4), plan=st.lists(controls, max_size=4))
def test_who_sends_again_what_came_after_a_snapshot_gets_the_same_numbers(crashes, plan):
    """Each crash goes back to an older snapshot; samples and controls after it are sent again."""
    plan.sort(key=lambda control: control[0])

    def act(stream: Stream) -> list[News]:
        back = plan[stream.controls][1]
        return stream.flush() if back is None else stream.rewind(back)

    stream, expected = begin(keep_s=1), []
    for stop, _ in plan:
        expected += stream.push(SPEECH[stream.received : stop]) + act(stream)
    expected += stream.push(SPEECH[stream.received :]) + stream.finish()

    rng = random.Random(len(crashes))
    stream, told, saved = begin(keep_s=1), {}, begin(keep_s=1).snapshot()
    for stop in [*sorted(crashes), len(SPEECH)]:
        while stream.received < stop or stream.controls < sum(at <= stop for at, _ in plan):
            ahead = [at for at, _ in plan[stream.controls : stream.controls + 1]]
            if ahead and ahead[0] <= stream.received:
                news = act(stream)
            else:
                size = min([rng.randint(1, 3000), *(at - stream.received for at in [stop, *ahead])])
                news = stream.push(SPEECH[stream.received : stream.received + size])
            for item in news:
                assert bare([told.setdefault(item.seq, item)]) == bare([item])
            if rng.random() < 0.2:
                saved = stream.snapshot()
        if stop < len(SPEECH):
            stream = Stream.restore(MODEL, saved)
    told |= {item.seq: item for item in stream.finish()}
    assert bare([told[seq] for seq in sorted(told)]) == bare(expected)


def test_a_snapshot_has_the_events_that_nobody_confirmed():
    stream = begin()
    news = stream.push(SPEECH) + stream.flush()
    stream.confirm(3)
    stream = Stream.restore(MODEL, stream.snapshot())
    assert list(stream.unconfirmed) == news[3:]
    assert (stream.received, stream.controls, stream.seq) == (len(SPEECH), 1, len(news))
    stream.confirm(stream.seq)
    assert not stream.unconfirmed


def test_a_restored_stream_and_a_fork_go_back_as_far_over_flushes_and_hot_words():
    stream = begin(keep_s=60)
    stream.push(SPEECH[:12000])
    stream.flush()
    stream.push(SPEECH[12000:20000])
    stream.set_hotwords(["Anna"])  # refused: a control that does nothing
    stream.push(SPEECH[20000:40000])
    for make in (
        lambda: Stream.restore(MODEL, stream.snapshot()),
        lambda: Stream.restore(MODEL, Stream.restore(MODEL, stream.snapshot()).snapshot()),
        stream.fork,
    ):
        other, twin = make(), stream.fork()
        for back in (100, 22000, 2000, 5000):  # to 39900, 17900, 15900 and 10900
            (item,) = other.rewind(back)
            assert isinstance(item.event, Rewound) and bare([item]) == bare(twin.rewind(back))
        again = SPEECH[10900:]
        rest = other.push(again) + other.finish()
        assert rest and bare(rest) == bare(twin.push(again) + twin.finish())


def test_a_restored_stream_knows_which_hot_words_stood_where():
    stream = Stream(Session(MODEL, 16000, 320, "beam"), 60)
    stream.push(SPEECH[:8000])
    stream.set_hotwords([("zebra", 2.0)])
    stream.push(SPEECH[8000:16000])
    stream.set_hotwords([])
    stream.push(SPEECH[16000:24000])
    restored = Stream.restore(MODEL, stream.snapshot())
    for back, words in ((1000, []), (9000, ["zebra"]), (9000, [])):  # to 23000, 14000 and 5000
        for one in (stream, restored):
            (item,) = one.rewind(back)
            assert isinstance(item.event, Rewound)
            assert [word.phrase for word in one.session.hotwords] == words
    assert bare(restored.finish()) == bare(stream.finish())


def test_how_far_back_one_can_go_is_no_matter_of_chunks():
    for size in (700, 16000, 40000):
        stream = begin(keep_s=1)
        for start in range(0, len(SPEECH), size):
            stream.push(SPEECH[start : start + size])
        for back, kind in ((16001, Refused), (16000, Rewound), (1, Refused)):
            assert isinstance(stream.rewind(back)[0].event, kind), (size, back)


def test_endpoints_are_told_and_kept():
    stream = Stream(MODEL.session(), 1)
    news = stream.push(SPEECH) + stream.flush()
    endpoint, flushed = [item.event for item in news[-2:]]
    assert isinstance(endpoint, Endpoint) and endpoint.rule == "end"
    words = [item.event for item in news if isinstance(item.event, Word)]
    assert endpoint.end_s == words[-1].end_s and isinstance(flushed, Flushed)
    assert list(Stream.restore(MODEL, stream.snapshot()).unconfirmed) == news


@few
@given(at=places, back=places)
def test_after_a_rewind_the_stream_is_what_it_was(at, back):
    stream = begin(keep_s=60)
    news = [item for start in range(0, at, 1600) for item in stream.push(SPEECH[start:at][:1600])]
    (item,) = stream.rewind(min(back, at))
    position = at - min(back, at)
    assert isinstance(item.event, Rewound) and item.event.position == position
    kept = [earlier for earlier in news if earlier.seq <= item.event.keep]
    again = kept + stream.push(SPEECH[position:]) + stream.finish()
    plain = begin()
    straight = plain.push(SPEECH) + plain.finish()
    words = [(i.event.word, i.event.start_s) for i in again if isinstance(i.event, Word)]
    assert words == [(i.event.word, i.event.start_s) for i in straight if isinstance(i.event, Word)]
    assert stream.received == at + len(SPEECH) - position


def test_a_rewind_across_a_flush_and_a_second_rewind():
    stream = begin(keep_s=60)
    stream.push(SPEECH[:20000])
    stream.flush()
    stream.push(SPEECH[20000:30000])
    stream.rewind(15000)
    stream.push(SPEECH[15000:25000])
    (item,) = stream.rewind(22000)
    assert item.event.position == 3000
    news = stream.push(SPEECH[3000:]) + stream.finish()
    plain = begin()
    straight = plain.push(SPEECH) + plain.finish()
    last = [i.event.word for i in straight if isinstance(i.event, Word)]
    found = [i.event.word for i in news if isinstance(i.event, Word)]
    assert found and last[-len(found) :] == found


def test_a_rewind_reaches_as_far_as_it_was_asked_to_and_not_for_ever():
    stream = begin(keep_s=3)
    for _ in range(20):
        stream.push(SPEECH[:16000])
    assert stream._history.num_places <= 4
    assert isinstance(stream.rewind(3 * 16000)[0].event, Rewound)
    assert isinstance(stream.rewind(6 * 16000)[0].event, Refused)
    assert isinstance(begin().rewind(1)[0].event, Refused)


def test_hot_words_that_cannot_be_are_told_and_change_nothing():
    stream = begin()
    (item,) = stream.set_hotwords(["Anna"])  # this model's decoder can't weigh any
    assert isinstance(item.event, Refused) and "hot words" in item.event.message
    assert stream.controls == 1


def test_a_fork_goes_on_alone():
    stream = begin()
    stream.push(SPEECH[:20000])
    fork = stream.fork()
    assert fork.seq == stream.seq and fork.unconfirmed == stream.unconfirmed
    rest = stream.push(SPEECH[20000:]) + stream.finish()
    assert fork.push(SPEECH[20000:]) + fork.finish() == rest


@pytest.mark.parametrize("cut", [0, 5, 20, 100, -1])
def test_a_damaged_snapshot_is_refused(cut):
    with pytest.raises(SnapshotError):
        Stream.restore(MODEL, begin().snapshot()[:cut])


@few
@given(st.binary(max_size=200))
def test_junk_is_refused(junk):
    for data in (junk, b"audiossm-stream2" + junk, b"audiossm-stream1\x02" + bytes(7) + junk):
        with pytest.raises(SnapshotError):
            Stream.restore(MODEL, data)


def test_a_state_that_is_no_number_is_found():
    session = MODEL.session()
    session.push(SPEECH[:8000])
    session.network_state = map_state(
        lambda t: t * np.nan if t.is_floating_point() else t, session.network_state
    )
    with pytest.raises(SessionError, match="no number"):
        session.push(SPEECH[8000:16000])
