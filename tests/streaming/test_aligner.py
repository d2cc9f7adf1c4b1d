"""Alignment of whole recordings: what is heard, where words and phones come to lie."""

import random

import numpy as np
import pytest
import soundfile

from audiossm.checkpoint import model_names
from audiossm.errors import AlignmentError, AudioError, ConfigError
from audiossm.lexicon import Lexicon, drop_stress
from audiossm.models import LoadedSounder, SpikeOffsets
from audiossm.streaming import Alignment, Token, Transcriber, aligner
from audiossm.streaming.aligner import split_text
from audiossm.streaming.listener import TAIL_S, Listener
from contract import random_split
from tiny_model import SPEECH, make_transcriber, read_speech
from tiny_sounder import make_sounder

AUDIO = SPEECH.parent.parent / "assets" / "audio" / "first-light.flac"
TEXT = (
    "The first light of morning came over the hills. One by one the birds began to sing, and the "
    "town woke up."
)
FRAME_S = 0.02


@pytest.fixture
def transcriber(monkeypatch) -> Transcriber:
    """The random model, whose three phones are a, n, t, and a lexicon of words made of them."""
    words = {"ant": "a n t", "tan": "t a n", "nat": "n a t", "at": "a t", "the": "ð ə"}
    monkeypatch.setattr(Lexicon, "load", lambda: Lexicon(words))
    monkeypatch.setattr(aligner, "shipped_sounder", lambda: None)
    model = make_transcriber()
    return Transcriber(model.network, name=model.name, model_hash=model.hash)


def listen(transcriber, pieces, rate: int = 16000, lookahead_ms: int = 320) -> Listener:
    listener = Listener(transcriber, rate, lookahead_ms)
    for piece in pieces:
        listener.push(piece)
    listener.finish()
    return listener


@pytest.mark.parametrize("rate", [16000, 22050])
@pytest.mark.parametrize("lookahead_ms", [0, 320])
def test_any_cut_of_the_samples_is_heard_alike(transcriber, rate, lookahead_ms):
    samples = read_speech()[: 3 * rate]
    whole = listen(transcriber, [samples], rate, lookahead_ms).heard()
    assert whole.phones is not None
    num_frames = -(-(3 + TAIL_S) * 16000 // 640) * 2
    assert len(whole.letters) == len(whole.phones) == num_frames
    for trial in range(3):
        sizes = random_split(len(samples), random.Random(trial))
        pieces = np.split(samples, np.cumsum(sizes)[:-1])
        cut = listen(transcriber, pieces, rate, lookahead_ms).heard()
        np.testing.assert_allclose(cut.letters, whole.letters, atol=2e-3)
        np.testing.assert_allclose(cut.phones, whole.phones, atol=2e-3)


@pytest.mark.parametrize("lookahead_ms", [0, 160, 320])
def test_a_listener_hears_what_a_session_decodes(transcriber, lookahead_ms):
    samples = read_speech()[:48000]
    session = transcriber.session(16000, lookahead_ms)
    silence = np.zeros(TAIL_S * 16000, np.float32)
    events = [*session.push(samples), *session.push(silence), *session.finish()]
    labels = listen(transcriber, [samples], lookahead_ms=lookahead_ms).heard().letters.argmax(1)
    # a session hears some silence more
    tokens = [
        (event.id, event.frame)
        for event in events
        if isinstance(event, Token) and event.frame < len(labels)
    ]
    before = np.concatenate([[0], labels[:-1]])
    found = np.flatnonzero((labels != 0) & (labels != before))
    assert len(tokens) > 10
    assert [(int(labels[frame]), int(frame)) for frame in found] == tokens


def test_the_silence_after_the_end_is_not_part_of_the_recording(transcriber):
    listener = listen(transcriber, [read_speech()[:10000]])
    assert listener.samples_received == 10000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's  hat.", [("The", ("the",)), ("cat's", ("cat's",)), ("hat.", ("hat",))]),
        ("a — b", [("a", ("a",)), ("b", ("b",))]),
        ("twenty-one naïve", [("twenty-one", ("twenty", "one")), ("naïve", ("naive",))]),
        ("the 3rd of May", [("the", ("the",)), ("3rd", ()), ("of", ("of",)), ("May", ("may",))]),
        ("so, нет!", [("so,", ("so",)), ("нет!", ())]),
    ],
)
def test_words_keep_their_spelling(text, expected):
    assert [(word.written, word.plain) for word in split_text(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), (" —\n", "is empty"), ("42 нет", "no words in letters")]
)
def test_a_text_without_words_is_refused(transcriber, text, message):
    with pytest.raises(AlignmentError, match=message):
        transcriber.align(read_speech(), text)


def check_order(alignment: Alignment) -> None:
    """Words and their phones are in order, inside the recording and inside each other."""
    edges = [edge for word in alignment.words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert edges[0] >= 0 and edges[-1] <= alignment.duration_s + 1e-9
    for word in alignment.words:
        if word.phones is not None:
            times = [word.phones[0].start_s, *(phone.end_s for phone in word.phones)]
            assert times == sorted(times)
            assert times[0] == pytest.approx(word.start_s)
            assert times[-1] == pytest.approx(word.end_s)
            for phone, following in zip(word.phones, word.phones[1:], strict=False):
                assert phone.end_s == following.start_s


def test_words_of_the_lexicon_have_phones_and_others_have_none(transcriber):
    result = transcriber.align(read_speech(), "Ant, the tan ant-nat! 42 natter at")
    names = [
        (word.word, word.phones and [phone.phone for phone in word.phones]) for word in result.words
    ]
    assert names == [
        ("Ant,", ["a", "n", "t"]),
        ("the", None),  # of phones that the model lacks
        ("tan", ["t", "a", "n"]),
        ("ant-nat!", ["a", "n", "t", "n", "a", "t"]),
        ("42", None),
        ("natter", None),  # not in the lexicon, and there is no sounder
        ("at", ["a", "t"]),
    ]
    assert [word.word for word in result.words if word.confidence is None] == ["42"]
    assert result.has_phones and not result.is_calibrated
    check_order(result)


def test_a_sounder_says_words_that_the_lexicon_lacks(transcriber, monkeypatch):
    monkeypatch.setattr(aligner, "shipped_sounder", lambda: "tiny")
    monkeypatch.setattr(LoadedSounder, "load", lambda name=None: make_sounder())
    said = drop_stress(make_sounder().pronounce(["natter"])[0])
    too_long = "n" * 65
    names = aligner._pronounce(split_text(f"ant natter tan-natter {too_long}"), ("a", "n", "t"))
    assert said and names == [("a", "n", "t"), said, ("t", "a", "n", *said), ()]
    result = transcriber.align(read_speech(), "ant natter")
    assert [phone.phone for phone in result.words[1].phones] == list(said)
    check_order(result)


def test_without_phones_words_are_timed_by_their_letters(transcriber):
    result = transcriber.align(read_speech(), "Ant tan", phones=False)
    assert not result.has_phones and [word.phones for word in result.words] == [None, None]
    labels = transcriber.vocabulary.encode("ant tan")
    heard = listen(transcriber, [read_speech()]).heard()
    spans = aligner.align_labels(heard.letters, np.array(labels))
    assert result.words[0].start_s == pytest.approx(spans.first[0] * FRAME_S)
    assert result.words[1].end_s == pytest.approx(
        min((spans.last[-1] + 1) * FRAME_S, result.duration_s)
    )
    assert result.words[0].confidence == pytest.approx(np.exp(spans.scores[:3].mean()), rel=1e-4)


def test_offsets_of_the_look_ahead_move_the_words(transcriber):
    text = "ant"
    before = transcriber.align(read_speech(), text, lookahead_ms=160, phones=False).words[0]
    transcriber.offsets = SpikeOffsets(letters_start=(9.0, -1.5, 9.0), letters_end=(9.0, 2.25, 9.0))
    after = transcriber.align(read_speech(), text, lookahead_ms=160, phones=False)
    assert after.is_calibrated
    assert after.words[0].start_s == pytest.approx(max(0, before.start_s - 1.5 * FRAME_S))
    assert after.words[0].end_s == pytest.approx(
        min(after.duration_s, before.end_s + 2.25 * FRAME_S)
    )


def test_a_word_lies_between_what_its_letters_and_its_phones_say(transcriber):
    spikes = aligner.find_spikes(listen(transcriber, [read_speech()]), split_text("ant"))
    (letters,), (phones,) = spikes.letters, spikes.phones
    start = (letters[0].start + phones[0].start) / 2
    end = (letters[-1].end + phones[-1].end) / 2
    # by now the word is longer than its phones may need
    transcriber.offsets = SpikeOffsets(
        letters_start=(0.0, 0.0, -3.0),
        letters_end=(0.0, 0.0, 1.0),
        phones_start=(0.0, 0.0, -2.0),
        phones_end=(0.0, 0.0, 3.0),
        phones_inner=(0.0, 0.0, 0.25),
    )
    (word,) = transcriber.align(read_speech(), "ant").words
    assert word.start_s == pytest.approx(max(0, start - 2.5) * FRAME_S)
    last = len(read_speech()) / 16000
    assert word.end_s == pytest.approx(min(last, (end + 2) * FRAME_S))
    expected = [span.start * FRAME_S + 0.005 for span in phones[1:]]
    inside = [word.start_s < edge < word.end_s for edge in expected]
    assert any(inside)
    for phone, edge, fits in zip(word.phones[1:], expected, inside, strict=True):
        if fits:
            assert phone.start_s == pytest.approx(edge)


@pytest.mark.parametrize("offset", [-40.0, 0.0, 40.0])
def test_no_offset_moves_a_word_out_of_the_recording(transcriber, offset):
    offsets = (offset, offset, offset)
    transcriber.offsets = SpikeOffsets(
        letters_start=offsets,
        letters_end=offsets,
        phones_start=offsets,
        phones_end=offsets,
        phones_inner=offsets,
    )
    check_order(transcriber.align(read_speech(), "ant tan the nat at ant"))


def test_a_file_gives_what_its_samples_give(transcriber, tmp_path):
    samples = read_speech()
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.stack([samples, samples], axis=1), 16000, subtype="FLOAT")
    expected = transcriber.align(samples, "ant tan at")
    with path.open("rb") as file:
        assert transcriber.align(path, "ant tan at") == transcriber.align(file, "ant tan at")
    assert transcriber.align(path, "ant tan at") == expected
    assert expected.duration_s == len(samples) / 16000


def test_audio_shorter_than_its_letters_is_refused(transcriber):
    with pytest.raises(AlignmentError, match="0.20 s, but the letters alone need 0.22 s"):
        transcriber.align(read_speech()[:3200], "ants eat nuts")


def test_bad_audio_and_look_aheads_are_refused(transcriber, tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        transcriber.align(tmp_path / "none.wav", "ant")
    with pytest.raises(ConfigError, match="look-ahead of 7 ms"):
        transcriber.align(read_speech(), "ant", lookahead_ms=7)
    cut = tmp_path / "cut.flac"
    cut.write_bytes((SPEECH / "river.flac").read_bytes()[:40000])
    with pytest.raises(AudioError):
        transcriber.align(cut, "ant")


@pytest.fixture(scope="module")
def shipped() -> Transcriber:
    if not model_names():
        pytest.skip("no model in assets/models yet")
    return Transcriber.load()


def test_the_shipped_model_finds_the_words_of_the_shipped_clip(shipped):
    result = shipped.align(AUDIO, TEXT)
    assert result.fits and result.is_calibrated
    assert " ".join(word.word for word in result.words) == result.text == TEXT
    check_order(result)
    times = {word.word: word for word in result.words}
    # its loudness: speech begins at 0.18 s, pauses from 2.85 to 3.05 s, ends at 6.1 s
    assert times["The"].start_s == pytest.approx(0.18, abs=0.1)
    assert times["hills."].end_s == pytest.approx(2.85, abs=0.15)
    assert times["One"].start_s == pytest.approx(3.05, abs=0.1)
    assert times["up."].end_s == pytest.approx(6.1, abs=0.15)


def test_a_number_gets_the_time_between_its_neighbours(shipped):
    spelled = {word.word: word for word in shipped.align(AUDIO, TEXT).words}
    number = {word.word: word for word in shipped.align(AUDIO, TEXT.replace("birds", "42")).words}
    assert number["42"].confidence is None
    assert number["42"].start_s == pytest.approx(spelled["birds"].start_s, abs=0.2)
    assert number["42"].end_s == pytest.approx(spelled["birds"].end_s, abs=0.2)
    assert number["began"].end_s == pytest.approx(spelled["began"].end_s, abs=0.05)


def test_a_wrong_text_does_not_fit(shipped):
    wrong = "Please leave your wet shoes outside on the step, or nobody will ever visit us again."
    assert not shipped.align(AUDIO, wrong).fits
