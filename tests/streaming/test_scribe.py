"""Written text in a stream: what is written stays, whatever comes and however it is cut."""

import json

import pytest
import torch

from audiossm.errors import SnapshotError
from audiossm.evaluate.writing import find_logits
from audiossm.marks import CASES, MARKS, STOP, MarkedWord, spell
from audiossm.models import choose_forms
from audiossm.streaming import Session, Word, WrittenWord
from audiossm.streaming.scribe import PAUSE_S, Scribe, pack_words, unpack_words
from session_runs import run_pieces
from tiny_model import make_transcriber, read_speech
from tiny_writer import make_writer

TEXT = "the cat is nineteen eighty four and said the dog is twenty three dogs a cat is no cat"


def say(text: str, step_s: float = 0.3) -> list[Word]:
    return [
        Word(word, round(at * step_s, 3), round(at * step_s + 0.25, 3), 0.5)
        for at, word in enumerate(text.split())
    ]


def write(words: list[Word], flushes: tuple[int, ...] = ()) -> list[WrittenWord]:
    scribe = Scribe(make_writer())
    state, told = scribe.init_state(), []
    for at, word in enumerate(words):
        if at in flushes:
            more, state = scribe.flush(state)
            told += more
        more, state = scribe.write(word, state)
        told += more
    more, state = scribe.flush(state)
    return told + more


def test_every_word_is_written_once_in_order():
    words = say(TEXT)
    for flushes in ((), (1,), (5, 9), tuple(range(len(words)))):
        told = write(words, flushes)
        assert " ".join(item.word for item in told) == TEXT
        assert told[0].start_s == words[0].start_s and told[-1].end_s == words[-1].end_s


def test_a_stream_writes_what_the_whole_text_gives():
    words = say("the cat is said to be a dog and the dog is no cat he said")
    marked = [MarkedWord(word.word, 0, 0) for word in words]
    forms = choose_forms(find_logits(make_writer().network, marked), STOP)
    expected = [(int(case), int(mark)) for case, mark in zip(*forms, strict=True)]
    told = write(words)
    assert [item.text for item in told] == [
        spell(word.word, case) + MARKS[mark]
        for word, (case, mark) in zip(words, expected, strict=True)
    ]
    assert len(set(expected)) > 3, "the test's writer doesn't vary"


def test_words_wait_for_the_look_ahead():
    scribe = Scribe(make_writer())
    state = scribe.init_state()
    for at, word in enumerate(say("the cat is said to be")):
        told, state = scribe.write(word, state)
        assert len(told) == (at >= scribe.writer.lookahead)
        assert len(state.waiting) == min(at + 1, scribe.writer.lookahead)
    told, after = scribe.flush(state)
    assert [item.word for item in told] == ["to", "be"]
    assert scribe.flush(after) == ([], after)


def test_a_number_is_written_when_it_is_whole():
    scribe = Scribe(make_writer())
    # neither case nor marks: numbers alone
    plain = torch.zeros(len(CASES) + len(MARKS))
    plain[0] = plain[len(CASES)] = 1e4
    with torch.no_grad():
        kept = scribe.writer.network.head.bias.clone()
        scribe.writer.network.head.bias += plain
    try:
        told = write(say("the dog is nineteen eighty four and twenty dollars"))
    finally:
        with torch.no_grad():
            scribe.writer.network.head.bias.copy_(kept)
    assert [item.text for item in told] == ["The", "dog", "is", "1984", "and", "$20"]
    assert told[3].word == "nineteen eighty four"
    assert (told[3].start_s, told[3].end_s) == (0.9, 1.75)
    assert told[3].confidence == pytest.approx(0.5)


def test_a_pause_is_a_border():
    words = say(TEXT)
    late = [
        Word(w.word, w.start_s + shift, w.end_s + shift, w.confidence)
        for at, w in enumerate(words)
        for shift in [PAUSE_S if at >= 9 else 0.0]
    ]
    texts = [item.text for item in write(late)]
    assert texts == [item.text for item in write(words, (9,))]
    assert texts != [item.text for item in write(words)]


def test_a_step_leaves_its_state_alone_and_json_holds_the_words():
    scribe = Scribe(make_writer())
    state = scribe.init_state()
    for word in say("the dog is nineteen eighty four"):
        _, state = scribe.write(word, state)
    packed = json.loads(json.dumps(pack_words(state)))
    assert unpack_words(packed, state.network) == state
    first = scribe.flush(state)[0]
    assert scribe.flush(state)[0] == first
    for damaged in (None, [1], [[["a"]], [], None], [[], [[1, 2]], None]):
        with pytest.raises(SnapshotError, match="damaged"):
            unpack_words(damaged, state.network)


def begin(writer: bool = True) -> Session:
    model = make_transcriber()
    return Session(model, writer=make_writer() if writer else None)


@pytest.fixture
def with_writer(monkeypatch):
    monkeypatch.setattr(make_transcriber(), "writer", make_writer())


@pytest.mark.parametrize("stops", [(), (30000, 41000)])
def test_any_chunking_and_snapshots_write_the_same(with_writer, stops):
    actions = [(stop, Session.flush) for stop in stops]
    speech = read_speech()
    told = run_pieces(begin(), speech, [len(speech)], actions)
    texts = [event for event in told if isinstance(event, WrittenWord)]
    words = [event for event in told if isinstance(event, Word)]
    assert len(words) > 5
    assert " ".join(item.word for item in texts) == " ".join(word.word for word in words)
    for sizes, restore in (([320], False), ([5000, 77], False), ([4000], True)):
        again = run_pieces(begin(), speech, sizes, actions, restore)
        assert [(e.text, e.start_s) for e in again if isinstance(e, WrittenWord)] == [
            (e.text, e.start_s) for e in texts
        ], (sizes, restore)


def test_without_a_writer_everything_else_is_the_same(with_writer):
    speech = read_speech()
    told = run_pieces(begin(), speech, [5000])
    plain = run_pieces(begin(writer=False), speech, [5000])
    assert [event for event in told if not isinstance(event, WrittenWord)] == plain


def test_unwritten_are_the_words_told_and_not_yet_written():
    session, words, texts = begin(), [], []
    for piece in [*[read_speech()[at : at + 8000] for at in range(0, 80000, 8000)]]:
        for event in session.push(piece):
            if isinstance(event, Word):
                words.append(event.word)
            elif isinstance(event, WrittenWord):
                texts.append(event.word)
        waiting = [word.word for word in session.unwritten]
        assert " ".join([*texts, *waiting]) == " ".join(words)
    assert begin(writer=False).unwritten == ()


def test_a_snapshot_needs_its_writer(with_writer, monkeypatch):
    session = begin()
    session.push(read_speech())
    saved, model = session.snapshot(), make_transcriber()
    assert Session.restore(model, saved).finish() == session.finish()
    for other in (None, make_writer(2)):
        monkeypatch.setattr(model, "writer", other)
        with pytest.raises(SnapshotError, match="another writer"):
            Session.restore(model, saved)
    # one without text goes on without, whatever the transcriber has
    assert Session.restore(model, begin(writer=False).snapshot()).writer is None
