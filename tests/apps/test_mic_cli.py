"""``audiossm mic``, with a microphone that is made up."""

import asyncio
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from audiossm.protocol import native
from audiossm.streaming import Endpoint, EndpointRules, Word
from audiossm_apps import dictation
from audiossm_apps.cli import main
from audiossm_apps.ears import Heard, RepliedText
from audiossm_apps.mic_view import TerminalView, TextView, describe_sound
from audiossm_apps.microphone import Microphone
from live_service import run_live
from tiny_model import make_transcriber, read_speech

RATE = 16000


class FakeSound(ModuleType):
    """A sounddevice whose microphone has said everything as soon as it is started."""

    class PortAudioError(Exception):
        pass

    def __init__(self, samples: np.ndarray, overflows: int = 0, gone: bool = False) -> None:
        super().__init__("sounddevice")
        self.samples, self.overflows, self.gone = samples, overflows, gone
        self.opened: dict[str, Any] = {}
        self.devices = [
            {"index": 0, "name": "Loud", "max_input_channels": 0, "default_samplerate": 48000.0},
            {"index": 1, "name": "Desk", "max_input_channels": 2, "default_samplerate": 16000.0},
            {"index": 2, "name": "Studio", "max_input_channels": 1, "default_samplerate": 96000.0},
        ]

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        found = [
            item
            for item in self.devices
            if item["max_input_channels"]
            and (device in (None, item["index"]) or str(device) in item["name"])
        ]
        if not found:
            raise self.PortAudioError(f"Error querying device {device}")
        return found[0]

    def InputStream(self, **settings: Any) -> Any:
        self.opened = settings

        def start() -> None:
            size, channels = settings["blocksize"], settings["channels"]
            block = np.zeros((size, channels), np.float32)
            for number, at in enumerate(range(0, len(self.samples), size)):
                piece = self.samples[at : at + size]
                block[: len(piece)] = piece[:, np.newaxis]  # one buffer, as PortAudio has
                status = SimpleNamespace(input_overflow=number < self.overflows)
                settings["callback"](block[: len(piece)], len(piece), None, status)
            if self.gone:
                settings["finished_callback"]()

        return SimpleNamespace(start=start, close=settings["finished_callback"])


@pytest.fixture
def speech():
    return read_speech()[: 6 * RATE]


@pytest.fixture
def sound(monkeypatch, speech):
    made = FakeSound(speech)
    monkeypatch.setitem(sys.modules, "sounddevice", made)
    monkeypatch.setattr(dictation, "load_transcriber", lambda args, readable: make_transcriber())
    return made


@pytest.fixture
def expected(speech, tmp_path):
    soundfile.write(tmp_path / "expected.wav", speech, RATE)
    text = make_transcriber().transcribe(tmp_path / "expected.wav").text
    assert len(text.split()) > 3
    return text


def test_it_writes_what_transcribe_writes_of_the_same(sound, expected, capsys):
    assert main(["mic", "--duration-s", "0.01"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == expected.split() and out.endswith("\n")
    assert err == "audiossm: listening to Desk; Ctrl-C ends\n"
    assert sound.opened["channels"] == 2 and sound.opened["samplerate"] == RATE
    assert sound.opened["blocksize"] == RATE // 50


def test_ctrl_c_ends_it_with_all_that_was_heard(sound, expected, capsys, monkeypatch):
    def stop(view, description):
        monkeypatch.setattr(TextView, "sound", lambda view, description: None)
        raise KeyboardInterrupt

    monkeypatch.setattr(TextView, "sound", stop)
    assert main(["mic"]) == 0
    assert capsys.readouterr().out.split() == expected.split()


def test_a_second_ctrl_c_keeps_what_came_until_then(sound, tmp_path, capsys, monkeypatch):
    release = threading.Event()

    def listen(blocks, sample_rate, tell):
        next(blocks)
        tell([Heard("so", 0.0, 0.5)], "far")
        release.wait(60)

    def stop(view, description):
        raise KeyboardInterrupt

    ear = SimpleNamespace(listen=listen, note="")
    monkeypatch.setattr(dictation, "_make_ear", lambda args, hotwords: ear)
    monkeypatch.setattr(TextView, "sound", stop)
    assert main(["mic", "--save", str(tmp_path / "talk")]) == 130
    release.set()
    assert capsys.readouterr().out == "so\n"
    assert (tmp_path / "talk.srt").read_text().splitlines()[2] == "so"
    assert 0 < soundfile.info(tmp_path / "talk.wav").frames <= RATE


def test_sound_and_words_are_saved(sound, speech, expected, tmp_path, capsys):
    argv = ["mic", "--duration-s", "0.01", "--save", str(tmp_path / "talk.wav")]
    assert main(argv) == 0
    saved, rate = soundfile.read(tmp_path / "talk.wav", dtype="float32")
    assert rate == RATE
    np.testing.assert_array_equal(saved, speech)
    lines = (tmp_path / "talk.srt").read_text().splitlines()
    assert lines[0] == "1" and " --> " in lines[1]
    shown = [line for line in lines if line and " --> " not in line and not line.isdecimal()]
    assert " ".join(shown) == expected
    assert main(argv) == 1
    assert "talk.wav exists: choose another name for --save" in capsys.readouterr().err


def test_overflows_are_counted(sound, capsys):
    sound.overflows = 3
    assert main(["mic", "--duration-s", "0.01"]) == 0
    assert "the system lost sound 3 times (overflow)" in capsys.readouterr().err


def test_what_nobody_reads_in_time_is_dropped_and_counted(sound):
    sound.samples = np.zeros(RATE * 40, np.float32)
    with Microphone() as microphone:
        assert microphone.dropped == RATE * 10 and microphone.waiting_s == 30
        microphone.stop()
        assert sum(len(block) for block in microphone.blocks()) == RATE * 30
    assert microphone.problem is None


def test_a_microphone_that_goes_is_told_with_what_was_heard(sound, expected, capsys):
    sound.gone = True
    assert main(["mic"]) == 1
    out, err = capsys.readouterr()
    assert out.split() == expected.split() and out.endswith("\n")
    assert err.endswith("audiossm: error: Desk: the microphone is gone\n")


def test_microphones_are_listed_and_chosen(sound, capsys):
    assert main(["mic", "--list-devices"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "  1  Desk, 16000 Hz (default)",
        "  2  Studio, 96000 Hz",
    ]
    assert Microphone("Stud").sample_rate == 48000  # the most that is of use
    assert Microphone("1").name == "Desk"


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ([], "this machine has no microphone"),
        (["--device", "7"], "'7' is no microphone here: see 'audiossm mic --list-devices'"),
    ],
)
def test_a_missing_microphone_is_told_in_a_line(sound, device, said, capsys):
    sound.devices = sound.devices[:1]
    assert main(["mic", *device]) == 1
    assert capsys.readouterr().err == f"audiossm: error: {said}\n"
    assert main(["mic", "--list-devices"]) == 1
    assert capsys.readouterr().err == "audiossm: error: this machine has no microphone\n"


def test_a_missing_package_is_told_in_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["mic"]) == 1
    assert "sounddevice: pip install 'audiossm[mic]'" in capsys.readouterr().err


def test_a_missing_library_is_told_in_a_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    assert main(["mic"]) == 1
    assert "needs the library PortAudio (on Debian" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--server", "x", "--model", "y"], "--model is about this process"),
        (["--server", "x", "--backend", "onnx"], "--backend is about this process"),
        (["--server", "x", "--threads", "1"], "--threads is about this process"),
        (["--key", "x"], "--key is a server's"),
    ],
)
def test_no_option_does_nothing(argv, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["mic", *argv])
    assert said in capsys.readouterr().err


def test_a_server_hears_the_same(sound, expected, capsys):
    async def test(_, address):
        argv = ["mic", "--duration-s", "0.01", "--server", address]
        assert await asyncio.to_thread(main, argv) == 0

    run_live(test)
    assert capsys.readouterr().out.split() == expected.split()


def say(kind: type[native.Reply], text: str = "", seq: int = 0, plain: str = "") -> native.Reply:
    times = {"start_s": 0.0, "end_s": 1.0, "confidence": 1.0}
    if kind is native.Partial:
        return native.Partial(seq=seq, text=text)
    if kind is native.Word:
        return native.Word(seq=seq, word=text, **times)
    return native.Written(seq=seq, text=text, word=plain, **times)


WRITTEN = [
    (say(native.Partial, "the fir"), [], "the fir"),
    (say(native.Word, "the"), [], "the fir"),
    (say(native.Word, "first"), [], "the first"),
    (say(native.Partial, "the first li"), [], "the first li"),
    (say(native.Written, "The", plain="the"), ["The"], "first li"),
    (say(native.Word, "twenty"), [], "first twenty"),
    (say(native.Word, "one"), [], "first twenty one"),
    (say(native.Written, "first", plain="first"), ["first"], "twenty one"),
    (say(native.Written, "21.", plain="twenty one"), ["21."], ""),
    (native.Finished(seq=9, received=9), [], ""),
]


def test_replies_show_each_word_once():
    text = RepliedText(raw=False)
    for reply, words, unfinished in WRITTEN:
        assert [word.text for word in text.add(reply)] == words, reply
        assert text.unfinished == unfinished, reply


def test_raw_replies_are_the_plain_words():
    text = RepliedText(raw=True)
    told = [word.text for reply, _, _ in WRITTEN for word in text.add(reply)]
    assert told == ["the", "first", "twenty", "one"]
    assert text.unfinished == ""


@pytest.mark.parametrize("raw", [False, True])
def test_plain_words_are_told_where_nothing_writes_them(raw):
    text = RepliedText(raw)
    told = text.add(say(native.Word, "the"))
    told += text.add(say(native.Partial, "fir"))
    assert [word.text for word in told] == ["the"] and text.unfinished == "fir"
    assert [word.text for word in text.add(say(native.Word, "first"))] == ["first"]
    assert text.add(native.Finished(seq=9, received=9)) == [] and text.unfinished == ""


def end(rule: str) -> native.Reply:
    return native.Endpoint(seq=0, rule=rule, time_s=1.0)


@pytest.mark.parametrize("raw", [False, True])
def test_the_first_word_after_a_pause_begins_a_line(raw, capsys):
    text, view = RepliedText(raw), TextView()
    for reply in [
        *(say(native.Word, "so"), end("pause"), end("silence"), say(native.Word, "far")),
        *(end("length"), say(native.Word, "and"), end("end"), say(native.Word, "on")),
        native.Finished(seq=9, received=9),
    ]:
        view.words(text.add(reply), text.unfinished)
    view.close()
    assert capsys.readouterr().out == "so\nfar and\non\n"


def test_a_pause_begins_a_line_with_a_model_of_ones_own(sound, speech, capsys, monkeypatch):
    rules = EndpointRules(pause_s=0.04)

    def begin(rate=RATE, lookahead_ms=320, hotwords=()):
        return make_transcriber().session(rate, lookahead_ms, hotwords, rules)

    model = SimpleNamespace(session=begin, writer=None)
    monkeypatch.setattr(dictation, "load_transcriber", lambda args, readable: model)
    assert main(["mic", "--duration-s", "0.01"]) == 0
    session, lines = begin(), [""]
    for event in session.push(speech) + session.finish():
        if isinstance(event, Endpoint) and event.rule != "length" and lines[-1]:
            lines.append("")
        elif isinstance(event, Word):
            lines[-1] = f"{lines[-1]} {event.word}".strip()
    found = capsys.readouterr().out.splitlines()
    assert found == [line for line in lines if line] and len(found) > 1


def test_the_line_about_the_sound():
    quiet = describe_sound(0.1, 61.4, waiting_s=0.3, overflows=0, dropped_s=0.0, note="")
    assert quiet == "[#############.......]  -20 dB  1:01"
    loud = describe_sound(1.0, 2.0, waiting_s=4.2, overflows=2, dropped_s=1.5, note="waiting")
    assert loud == (
        "[####################] too loud  0:02  4 s behind  overflows: 2  1.5 s lost  waiting"
    )


def test_a_terminal_shows_the_words_and_the_level(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    view = TerminalView()
    text = RepliedText(raw=False)
    for reply, _, _ in WRITTEN:
        view.words(text.add(reply), text.unfinished)
        view.sound("[##..]")
    view.close()
    view.words([Heard("Next", 2.0, 3.0, begins=True)], "")
    view.close()
    out = capsys.readouterr().out
    assert "first li" in out and "[##..]" in out
    assert "The first 21.\n" in out and out.rstrip("\n").endswith("Next")
