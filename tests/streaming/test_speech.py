"""Speech: the same whole or in pieces, from a snapshot anywhere, of any length in little memory."""

import gc
import random
import tracemalloc
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from audiossm import __version__
from audiossm.errors import AudioError, ConfigError, PronunciationError, SessionError, SnapshotError
from audiossm.streaming import Skipped, Sound, SpeechSession, SpokenWord, continuation
from audiossm.streaming import speech as module
from audiossm.streaming.code_maker import CodeMaker
from audiossm.streaming.speech_snapshot import unpack_voice
from audiossm.units import Unit
from contract import random_split
from tiny_model import read_speech
from tiny_speaker import TEXT, make_speaker, make_voice

SPEAKER = make_speaker()


def run(session, text, sizes=None, restore=False):
    """What a session makes of a text in pieces; with ``restore``, through a snapshot each event."""
    events = []
    pieces = [text] if sizes is None else []
    at = 0
    for size in sizes or ():
        pieces.append(text[at : at + size])
        at += size
    for piece in [*pieces, None]:
        made = session.finish() if piece is None else session.push(piece)
        if not restore:
            events += made
            continue
        while (event := next(made, None)) is not None:
            events.append(event)
            session = SPEAKER.restore(session.snapshot())
            made = session.events()
    return events


def join(events):
    sounds = [event for event in events if isinstance(event, Sound)]
    codes, samples = [sound.codes for sound in sounds], [sound.samples for sound in sounds]
    return np.concatenate(codes, axis=1), np.concatenate(samples)


def assert_same(found, expected):
    for a, b in zip(join(found), join(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = [[event for event in events if not isinstance(event, Sound)] for events in
             (found, expected)]  # fmt: skip
    assert plain[0] == plain[1]


@pytest.mark.parametrize("restart", [True, False])
def test_text_in_pieces_is_said_as_the_whole(restart):
    options = {"restart": restart, "seed": 3, "voice": make_voice()}
    whole = run(SPEAKER.session(**options), TEXT)
    codes, samples = join(whole)
    assert len(samples) == 320 * codes.shape[1] > 16000
    for trial in range(3):
        sizes = random_split(len(TEXT), random.Random(trial)) if trial else [1] * len(TEXT)
        assert_same(run(SPEAKER.session(**options), TEXT, sizes), whole)


def test_a_snapshot_anywhere_goes_on_exactly():
    options = {"seed": 4, "voice": make_voice(), "speed": 1.2, "temperature": 0.9}
    text = "Hello ☃ there. It's 9! Go"
    whole = run(SPEAKER.session(**options), text)
    assert_same(run(SPEAKER.session(**options), text, [7, 3, 9, 6], restore=True), whole)


def test_a_voice_s_gain_changes_samples_and_no_codes():
    louder = make_voice()
    codes, samples = join(run(SPEAKER.session(voice=louder), TEXT))
    bare_codes, bare = join(run(SPEAKER.session(voice=replace(louder, gain_db=0.0)), TEXT))
    np.testing.assert_array_equal(codes, bare_codes)
    np.testing.assert_array_equal(samples, bare * np.float32(10 ** (3.5 / 20)))
    assert samples.dtype == np.float32


def test_an_older_snapshot_has_no_gain():
    session = SPEAKER.session(voice=replace(make_voice(), gain_db=0.0))
    fields = [*session._fields()["voice"]]
    assert fields.pop() == 0.0
    assert unpack_voice(SPEAKER, fields, session._arrays()).gain_db == 0.0


def test_a_fork_goes_on_by_itself():
    session = SPEAKER.session(seed=1)
    begun = session.push(TEXT)
    first = [next(begun) for _ in range(20)]
    fork = session.fork()
    other = [*fork.push(" and the"), *fork.finish()]
    rest = [*session.events(), *session.finish()]
    assert_same(first + rest, run(SPEAKER.session(seed=1), TEXT))
    assert_same(first + other, run(SPEAKER.session(seed=1), f"{TEXT} and the"))


def test_speech_starts_before_the_text_ends_and_a_sentence_waits_for_none():
    session = SPEAKER.session()
    assert not list(session.push("Hello"))  # more of the word may come
    assert join(session.push(" there and"))[0].shape[1] > 0
    # a sentence that has ended is said, to its last pause
    sentence = SPEAKER.session()
    codes = join(sentence.push("Hello there. "))[0]
    alone = join(run(SPEAKER.session(), "Hello there. "))[0]
    np.testing.assert_array_equal(codes, alone)


def test_each_sentence_is_a_text_of_its_own_for_the_network():
    """With nothing drawn by chance, the same sentence twice is twice the same."""
    options = {"temperature": 0.0, "sampling": None}
    session = SPEAKER.session(**options)
    session.sampling = module.Sampling(temperature=0.0, spread=0.0)
    codes = join(run(session, "Hello there. Hello there."))[0]
    half = codes.shape[1] // 2
    np.testing.assert_array_equal(codes[:, :half], codes[:, half:])
    # and not so if the state goes on
    on = SPEAKER.session(restart=False, **options)
    on.sampling = session.sampling
    codes = join(run(on, "Hello there. Hello there."))[0]
    half = codes.shape[1] // 2
    assert codes.shape[1] % 2 or (codes[:, :half] != codes[:, half:]).any()


def test_words_are_told_as_written_with_their_times():
    events = run(SPEAKER.session(), TEXT)
    words = [event for event in events if isinstance(event, SpokenWord)]
    assert [word.word for word in words] == TEXT.split()
    edges = [edge for word in words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges) and all(word.end_s > word.start_s for word in words)
    assert edges[-1] <= len(join(events)[1]) / 16000
    # its last sound comes within the delay of the groups
    heard = 0.0
    for event in events:
        if isinstance(event, Sound):
            heard += event.codes.shape[1] * 0.02
        else:
            assert event.end_s - heard <= 0.02 * (SPEAKER.config.num_groups - 1) + 1e-9


def test_the_options_change_what_is_said():
    base = SPEAKER.say("Hello there.")
    np.testing.assert_array_equal(SPEAKER.say("Hello there.").codes, base.codes)
    for options in ({"seed": 1}, {"temperature": 2.0}, {"voice": make_voice()}):
        found = SPEAKER.say("Hello there.", **options).codes
        assert found.shape != base.codes.shape or (found != base.codes).any(), options


def test_the_network_is_told_the_voices_pace():
    told = SPEAKER.session(voice=make_voice(), speed=2.0).maker.who
    np.testing.assert_array_equal(told, SPEAKER.tell_voice(make_voice().vector, 0.1))
    told = SPEAKER.session(voice=make_voice(), speed=0.5).maker.who
    np.testing.assert_array_equal(told, SPEAKER.tell_voice(make_voice().vector, 0.1 + log(2)))


@pytest.mark.parametrize("speed", [1.3, 3.0])
def test_at_another_speed_the_same_is_said_in_another_time(speed):
    plain, other = SPEAKER.say(TEXT, seed=2), SPEAKER.say(TEXT, seed=2, speed=speed)
    np.testing.assert_array_equal(other.codes, plain.codes)
    assert len(other.samples) == round(len(plain.samples) / speed)
    for a, b in zip(plain.words, other.words, strict=True):
        assert a.word == b.word
        assert (b.start_s, b.end_s) == pytest.approx((a.start_s / speed, a.end_s / speed))


@pytest.mark.parametrize("speed", [0.5, 1.3])
def test_at_another_speed_pieces_of_text_change_nothing(speed):
    whole = SPEAKER.say(TEXT, seed=2, speed=speed)
    sizes = random_split(len(TEXT), random.Random(5))
    session = SPEAKER.session(seed=2, speed=speed)
    codes, samples = join(run(session, TEXT, sizes))
    np.testing.assert_array_equal(samples, whole.samples)
    np.testing.assert_array_equal(codes, whole.codes)
    assert whole.words[-1].end_s <= len(samples) / SPEAKER.sample_rate


def test_a_fork_at_another_speed_goes_on_by_itself():
    session = SPEAKER.session(seed=1, speed=1.5)
    begun = session.push(TEXT)
    first = [next(begun) for _ in range(20)]
    fork = session.fork()
    rest = [*session.events(), *session.finish()]
    assert_same([*fork.events(), *fork.finish()], rest)
    assert_same([*first, *rest], run(SPEAKER.session(seed=1, speed=1.5), TEXT))
    assert session.seconds == fork.seconds == len(join([*first, *rest])[1]) / 16000


def test_every_unit_lasts_a_frame_at_least_and_none_for_ever(monkeypatch):
    session = SPEAKER.session()
    lengths, begin = [], session._begin_unit

    def count():
        begun = begin()
        if begun:
            lengths.append([session.unit, 0])
        return begun

    take = session.take

    def step(outputs):
        if not session.tail:
            lengths[-1][1] += 1
        take(outputs)

    session._begin_unit, session.take = count, step
    with torch.no_grad():
        network = SPEAKER.network
        bias = network.head.bias[-1].item()
        try:
            network.head.bias[-1] = -1e4  # no unit ever ends by itself
            run(session, "Hello, there.")
        finally:
            network.head.bias[-1] = bias
    for unit, length in lengths:
        assert length == (10 if unit.symbol == "_" else 75 if unit.is_pause else 40), unit
    assert lengths[0][0] == Unit("_", 0, 0, 0) and len(lengths) > 6
    try:
        network.head.bias[-1] = 1e4  # each ends at once
        codes = SPEAKER.say("Hello, there.").codes
    finally:
        network.head.bias[-1] = bias
    assert codes.shape[1] == len(lengths)


def test_what_cant_be_said_is_told_and_the_rest_is_said():
    events = run(SPEAKER.session(), "Hello 你好 there 🙂. ж")
    assert [event.text for event in events if isinstance(event, Skipped)] == ["你", "好", "🙂", "ж"]
    words = [event.word for event in events if isinstance(event, SpokenWord)]
    assert words == ["Hello", "there"]
    speech = SPEAKER.say("Hello 🙂")
    assert speech.skipped == ("🙂",) and [word.word for word in speech.words] == ["Hello"]


def test_what_nobody_can_read_out_is_told_and_costs_little():
    for text, skipped in (
        ("1" * 100_000, ["1" * 100_000]),  # Python itself refuses to read such a number
        ("$" + "1" * 5000 + "th", ["$" + "1" * 5000 + "th"]),
        ("⅞", ["⅞"]),
        ("a" * 100_000, ["a" * 100_000]),
        ("你" * 100_000, ["你"] * 100_000),
        ("- " * 50_000, []),
    ):
        events = run(SPEAKER.session(), text)
        found = [event.text.lstrip("$") for event in events]
        assert found == [item.lstrip("$") for item in skipped], text[:9]


@pytest.mark.parametrize("text", ["", " \n ", "...", "🙂"])
def test_a_text_without_words_makes_no_sound(text):
    events = run(SPEAKER.session(), text)
    assert not [event for event in events if isinstance(event, Sound)]
    with pytest.raises(PronunciationError, match="nothing"):
        SPEAKER.say(text)


def test_long_texts_are_said_in_the_memory_of_short_ones():
    session = SPEAKER.session()
    text = f"{TEXT}. " * 1300  # 100 000 characters
    sizes = []
    tracemalloc.start()
    for count, event in enumerate(session.push(text)):
        if isinstance(event, Sound) and event.codes.shape[1] == 1 and count % 60 == 30:
            gc.collect()  # torch leaves circles behind, which are collected now and then
            sizes.append(tracemalloc.get_traced_memory()[0])
        if count > 300:
            break
    tracemalloc.stop()
    assert max(sizes[1:]) - sizes[0] < 50_000 and len(sizes) >= 4
    assert len(session.ahead) < 50 and len(session.words) < 20


def test_a_session_is_finished_once():
    session = SPEAKER.session()
    list(session.push("Hello"))
    list(session.finish())
    for use in (session.finish, lambda: session.push("x")):
        with pytest.raises(SessionError, match="finished"):
            use()
    assert list(session.events()) == []


def test_snapshots_of_other_models_or_damaged_ones_are_refused():
    session = SPEAKER.session()
    begun = session.push(TEXT)
    for _ in range(5):
        next(begun)
    data = session.snapshot()
    with pytest.raises(SnapshotError):
        SPEAKER.restore(data[:-1])
    with pytest.raises(SnapshotError):
        SPEAKER.restore(b"junk")
    other = make_speaker.__wrapped__()
    other.hash = "f" * 32
    with pytest.raises(SnapshotError, match="model"):
        other.restore(data)
    for at in range(0, len(data), 997):
        damaged = bytearray(data)
        damaged[at] ^= 255
        with pytest.raises(SnapshotError):
            SPEAKER.restore(bytes(damaged))


def test_a_header_of_nonsense_is_refused(monkeypatch):
    session = SPEAKER.session()
    fields = session._fields()
    for change in (
        {"options": {}},
        {"options": fields["options"] | {"speed": 99}},
        {"counters": {}},
        {"unit": [1]},
        {"pending": [["what"]]},
        {"voice": ["x"]},
    ):
        monkeypatch.setattr(session, "_fields", lambda change=change: fields | change)
        with pytest.raises(SnapshotError):
            SPEAKER.restore(session.snapshot())


def test_a_decoder_of_several_frames_a_step_says_the_same():
    one, many = SPEAKER.say(TEXT), SPEAKER.say(TEXT, frames_per_step=8)
    np.testing.assert_array_equal(one.codes, many.codes)
    np.testing.assert_allclose(one.samples, many.samples, atol=1e-4)


def test_the_codes_are_those_of_the_samples():
    speech = SPEAKER.say("Hello there.")
    codes = SPEAKER.as_codes(speech)
    assert codes.num_samples == len(speech.samples)
    assert codes.comment == f"generated by audiossm {__version__}, model tiny"
    from_codes = make_decoder().decode(codes)[0]
    delay = SPEAKER.codec.network.delay
    np.testing.assert_allclose(
        speech.samples[:-delay], from_codes[: len(speech.samples) - delay], atol=1e-4
    )


def make_decoder():
    from toy_codec import make_audio_codec

    return make_audio_codec()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 0.0}, "speed is 0.0"),
        ({"speed": float("nan")}, "speed is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": 1.0, "sampling": module.Sampling()}, "either"),
    ],
)
def test_numbers_that_cant_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SPEAKER.session(**options)


def test_a_sentence_s_end_is_told_as_in_training(monkeypatch):
    """No text, no age, no pace, and no codes of frames that don't come."""
    session = SPEAKER.session(voice=make_voice())
    told, tell = [], session.maker.tell

    def spy(text, age=0):
        x = tell(text, age)
        told.append((session.tail, x, session.maker.late.copy()))
        return x

    monkeypatch.setattr(session.maker, "tell", spy)
    events = list(session.push("Hello. "))
    (tail,) = (number for number, (left, *_) in enumerate(told) if left)
    assert tail == len(told) - 1 == join(events)[0].shape[1]  # two groups: one step more
    network, config = SPEAKER.network, SPEAKER.config
    expected = network.embed(
        torch.from_numpy(told[tail][2][-1]).view(1, 1, -1),
        network.read(torch.zeros(1, config.window, 3, dtype=torch.int64))[:, 2:3],
        torch.zeros(1, 1, dtype=torch.int64),
        torch.from_numpy(make_voice().vector).unsqueeze(0),
        torch.zeros(1),
    )
    torch.testing.assert_close(told[tail][1], expected, rtol=1e-5, atol=1e-5)


def test_audio_goes_on_from_its_codes():
    speech = read_speech()[:16000]
    found = SPEAKER.continue_audio(speech, 16000, 0.5, seed=2)
    assert found.samples.shape == (8000,) and found.codes.shape == (2, 25)
    again = SPEAKER.continue_audio(speech, 16000, 1.0, seed=2)
    np.testing.assert_array_equal(again.codes[:, :25], found.codes)
    np.testing.assert_array_equal(again.samples[:7000], found.samples[:7000])
    other = SPEAKER.continue_audio(speech[::-1].copy(), 16000, 0.5, seed=2)
    assert (other.codes != found.codes).any()


def test_a_prompt_s_own_codes_are_what_the_network_is_told(monkeypatch):
    told = []
    network = SPEAKER.network
    step = network.step

    def spy(x, state):
        told.append(x)
        return step(x, state)

    monkeypatch.setattr(network, "step", spy)
    speech = read_speech()[:6400]
    SPEAKER.continue_audio(speech, 16000, 0.02)
    codes = torch.from_numpy(make_decoder().encode(speech[np.newaxis], num_groups=2).codes)
    codes = codes[0, :, :20].T.unsqueeze(0)
    none = SPEAKER.config.num_codes
    late = torch.full((1, 21, 2), none)
    late[:, 1:, 0] = codes[:, :, 0]
    late[:, 2:, 1] = codes[:, :19, 1]
    config = SPEAKER.config
    text = network.read(torch.zeros(1, config.window, 3, dtype=torch.int64))[:, 2:3]
    voice = torch.zeros(1, config.d_voice)
    expected = network.embed(
        late, text.expand(1, 21, -1), torch.zeros(1, 21, dtype=torch.int64), voice, torch.zeros(1)
    )
    torch.testing.assert_close(torch.cat(told[:21], dim=1), expected, rtol=1e-5, atol=1e-5)


def test_where_loudness_strays_the_prompt_is_heard_again(monkeypatch):
    told, heard = [], []
    take = CodeMaker.take

    def spy(self, outputs, known=None, num_over=0):
        told.append(known.copy())
        return take(self, outputs, known, num_over)

    def strays(self, samples):
        heard.append(len(samples))
        return len(heard) == 30  # 20 of the prompt, 10 new ones

    monkeypatch.setattr(CodeMaker, "take", spy)
    monkeypatch.setattr(continuation.Loudness, "strays", strays)
    found = SPEAKER.continue_audio(read_speech()[:6400], 16000, 0.5)
    assert found.codes.shape == (2, 25) and found.samples.shape == (8000,)
    # a frame of two groups is whole a step late
    assert [(column >= 0).tolist() for column in told[:31]] == [
        [True, False], *[[True, True]] * 19, [False, True], *[[False, False]] * 10
    ]  # fmt: skip
    np.testing.assert_array_equal(told[31:52], told[:21])
    assert len(told) == 31 + 21 + 15 and len(heard) == 45


def test_a_stretch_is_quiet_or_loud_beside_the_prompt():
    def tell(*levels):
        loudness = continuation.Loudness(100)
        frames = [(0.1, 100), *levels]
        told = [loudness.strays(np.full(320, level)) for level, n in frames for _ in range(n)]
        return [i - 100 for i, strayed in enumerate(told) if strayed]

    assert tell((0.1, 300)) == tell((0.04, 300)) == tell((0.19, 300)) == []
    assert tell((0.02, 199)) == tell((0.28, 199)) == []  # for a while
    assert tell((0.02, 410)) == tell((0.28, 410)) == [199, 399]
    assert tell((0.1, 150), (0.27, 130)) == [150 + 95]  # 96 of 200 frames at 7.3 times
    assert tell((0.01, 200)) == [74, 149]
    assert tell((0.1, 100), (0.3, 70)) == [100 + 65]
    assert tell((0.1, 10), (0.0, 74)) == [82]  # two of 75 are loud
    assert tell((0.1, 60), (0.0, 70), (0.1, 60)) == []
    silent = continuation.Loudness(2)
    assert not any(silent.strays(np.full(320, level)) for level in [0.0005] * 2 + [0.1] * 100)


def test_another_rate_is_resampled():
    speech = np.repeat(read_speech()[:8000], 3)
    assert SPEAKER.continue_audio(speech, 48000, 0.1).samples.shape == (1600,)


@pytest.mark.parametrize("length", [0, 1, 319])
def test_a_prompt_shorter_than_a_frame_is_refused(length):
    with pytest.raises(AudioError, match="a frame of 20 ms is the least"):
        SPEAKER.continue_audio(np.zeros(length, np.float32), 16000, 1.0)
    with pytest.raises(ConfigError, match="a frame is the least"):
        SPEAKER.continue_audio(np.zeros(400, np.float32), 16000, 0.0)


def test_the_session_is_where_the_readme_says():
    import audiossm

    assert audiossm.Speaker is type(SPEAKER) and audiossm.SpeechSession is SpeechSession
