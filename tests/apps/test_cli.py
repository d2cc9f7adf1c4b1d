"""The command line as a person meets it: formats, exit codes, damaged input, Ctrl-C."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.errors import AudioError
from audiossm.streaming import (
    EndpointRules,
    Reading,
    Segment,
    Token,
    Transcriber,
    Transcript,
    Word,
)
from audiossm_apps import transcribe
from audiossm_apps.cli import main
from audiossm_apps.outputs import make_writer
from tiny_model import make_transcriber, read_speech

RATE = 8000


class FakeSession:
    """Hears a word in each half second, named after the loudness, like a session at any chunking.

    ``on_push`` is called with the samples so far; it may press Ctrl-C.
    """

    def __init__(self, sample_rate: int, on_push: Callable[[int], None]) -> None:
        self.half = sample_rate // 2
        self.rate = sample_rate
        self.samples = np.zeros(0, np.float32)
        self.start = 0
        self.on_push = on_push
        self.unwritten: tuple[Word, ...] = ()

    @property
    def partial(self) -> str:
        return "hm" if len(self.samples) % self.half else ""

    def push(self, samples: np.ndarray) -> list[Token | Word]:
        assert samples.ndim == 1 and samples.dtype == np.float32
        self.samples = np.concatenate([self.samples, samples])
        events: list[Token | Word] = []
        while len(self.samples) - self.start >= self.half:
            events += self.hear(self.start + self.half)
        self.on_push(len(self.samples))
        return events

    def hear(self, end: int) -> list[Token | Word]:
        start, self.start = self.start, end
        if end == start:
            return []
        level = round(float(np.abs(self.samples[start:end]).mean()) * 10)
        if level == 0:
            return []
        name = f"w{level}"
        times = start / self.rate, end / self.rate
        return [Token(1, name, 0, 0.5), Word(name, *times, 0.123456)]

    def flush(self) -> list[Token | Word]:
        return self.hear(len(self.samples))

    finish = flush


@pytest.fixture
def model(monkeypatch):
    """Put a fake in the place of the model; ``model.on_push`` may be replaced."""
    fake = SimpleNamespace(
        name="fake",
        hash="abc",
        device=SimpleNamespace(type="cpu"),
        on_push=lambda samples: None,
        writer=None,
    )

    def begin_session(sample_rate, lookahead_ms, hotwords=(), endpoints=None, nbest=0):
        fake.endpoints, fake.nbest = endpoints, nbest
        fake.hotwords = [(word.phrase, word.weight) for word in hotwords]
        return FakeSession(sample_rate, lambda samples: fake.on_push(samples))

    fake.session = begin_session
    monkeypatch.setattr(Transcriber, "load", lambda name=None, **options: fake)
    return fake


def tone(*levels: float) -> np.ndarray:
    """Half a second of each level."""
    return np.repeat(np.array(levels, np.float32), RATE // 2)


@pytest.fixture
def talk(tmp_path):
    """Two and a quarter seconds: w1 w2 w3 (silence) w5."""
    audio = np.concatenate([tone(0.1, 0.2, 0.3, 0.0), tone(0.5)[: RATE // 4]])
    soundfile.write(tmp_path / "talk.wav", audio, RATE)
    return str(tmp_path / "talk.wav")


@pytest.fixture
def other(tmp_path):
    soundfile.write(tmp_path / "other.wav", tone(0.4), RATE)
    return str(tmp_path / "other.wav")


@pytest.fixture
def damaged(tmp_path):
    audio = np.concatenate([tone(0.1, 0.2), np.array([np.nan]), tone(0.3)])
    soundfile.write(tmp_path / "damaged.wav", audio, RATE, subtype="FLOAT")
    return str(tmp_path / "damaged.wav")


TEXT = "w1 w2 w3 w5"


def test_plain_text_is_a_line_for_each_file(model, talk, other, capsys):
    assert main(["transcribe", talk, other]) == 0
    assert capsys.readouterr() == (f"{TEXT}\nw4\n", "")


def test_json_of_one_file_is_an_object(model, talk, capsys):
    assert main(["transcribe", talk, "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.keys() == {"text", "duration_s", "model", "words", "segments"}
    assert (result["text"], result["duration_s"], result["model"]) == (TEXT, 2.25, "fake")
    assert result["words"][1] == {"word": "w2", "start_s": 0.5, "end_s": 1, "confidence": 0.1235}
    segment = {"start_s": 0.0, "end_s": 2.25, "text": TEXT, "confidence": 0.1235}
    assert result["segments"] == [segment]


def test_the_rules_for_segments_are_options(model, talk, capsys):
    assert main(["transcribe", talk]) == 0
    assert (model.endpoints, model.nbest) == (EndpointRules(), 0)
    options = ["--pause", "0.5", "--longest-segment", "9", "--nbest", "3", "--format", "json"]
    assert main(["transcribe", talk, *options]) == 0
    assert model.endpoints == EndpointRules(pause_s=0.5, longest_s=9.0)
    assert model.nbest == 3
    assert main(["transcribe", talk, "--no-endpoints"]) == 0
    assert model.endpoints is None
    for wrong in (["--nbest", "2"], ["--no-endpoints", "--pause", "1"], ["--pause", "0"]):
        with pytest.raises(SystemExit):
            main(["transcribe", talk, *wrong])


def test_json_has_the_alternatives_of_a_transcript_and_of_its_segments():
    ways = (Reading("go", -0.12345), Reading("no", -2.0))
    word = Word("go", 0.0, 1.0, 0.5)
    segment = Segment(0.0, 1.0, "go", 0.5, "pause", ways)
    transcript = Transcript("go", 1.0, "m", (word,), (segment,), ways)
    stream = io.StringIO()
    make_writer("json", stream, as_list=False, as_they_come=False).done("a", transcript)
    found = json.loads(stream.getvalue())
    expected = [{"text": "go", "score": -0.123}, {"text": "no", "score": -2.0}]
    assert found["alternatives"] == found["segments"][0]["alternatives"] == expected


def test_json_of_several_files_is_a_list_that_names_them(model, talk, other, capsys):
    assert main(["transcribe", talk, other, "--format", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["file"], second["file"], second["text"]) == (talk, other, "w4")


def test_json_lines_name_their_file_always(model, talk, capsys):
    assert main(["transcribe", talk, "--format", "jsonl"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["file"] == talk
    assert json.loads(line)["text"] == TEXT


def test_subtitles_have_the_times_of_the_words(model, talk, capsys):
    assert main(["transcribe", talk, "--format", "srt"]) == 0
    assert capsys.readouterr().out == "1\n00:00:00,000 --> 00:00:02,250\nw1 w2 w3 w5\n"
    assert main(["transcribe", talk, "--format", "vtt"]) == 0
    assert capsys.readouterr().out.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.250\n")


@pytest.mark.parametrize("kind", ["txt", "json", "jsonl", "srt", "vtt"])
def test_live_writes_the_same_bytes_to_a_pipe(model, talk, kind, capfdbinary):
    assert main(["transcribe", talk, "--format", kind]) == 0
    whole = capfdbinary.readouterr().out
    assert main(["transcribe", talk, "--format", kind, "--live"]) == 0
    assert capfdbinary.readouterr().out == whole != b""


def test_live_goes_in_pieces_of_20_ms(model, other):
    seen: list[int] = []
    model.on_push = seen.append
    main(["transcribe", other, "--live"])
    assert seen[:3] == [160, 320, 480]


def test_output_goes_to_a_file(model, talk, tmp_path, capsys):
    out = tmp_path / "out.txt"
    assert main(["transcribe", talk, "--output", str(out)]) == 0
    assert out.read_text() == f"{TEXT}\n"
    assert capsys.readouterr() == ("", "")


def test_an_output_file_is_replaced_by_a_result_and_kept_without_one(model, talk, tmp_path, capsys):
    out = tmp_path / "out.txt"
    out.write_text("what I had before, and it is much longer than the new one " * 20)
    before = out.read_text()
    assert main(["transcribe", str(tmp_path / "gone.wav"), "--output", str(out)]) == 1
    assert out.read_text() == before
    for fmt in ("txt", "json", "jsonl", "srt", "vtt"):
        out.write_text(before)
        assert main(["transcribe", talk, "--format", fmt, "--output", str(out)]) == 0
        first = out.read_text()
        assert "what I had" not in first
        assert main(["transcribe", talk, "--format", fmt, "--output", str(out)]) == 0
        assert out.read_text() == first
    assert main(["transcribe", talk, "--output", "/dev/null"]) == 0


def test_an_output_that_cannot_be_written_is_said_before_any_work(talk, tmp_path, capsys):
    out = tmp_path / "no" / "out.txt"  # no model fixture: nothing may be loaded
    assert main(["transcribe", talk, "--output", str(out)]) == 1
    assert capsys.readouterr().err == (
        f"audiossm: error: {out}: can't write there: No such file or directory\n"
    )


def test_a_full_disk_is_one_line(model, talk, capsys):
    assert main(["transcribe", talk, "--output", "/dev/full"]) == 1
    message = "/dev/full: can't write the result: No space left on device"
    assert capsys.readouterr().err == f"audiossm: error: {message}\n"


def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "audiossm_apps.cli", "info"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.stderr == "audiossm: error: standard output: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_one_line_or_nothing(closed, capsys, monkeypatch):
    monkeypatch.setattr(sys, closed, None)
    assert main(["transcribe", "-"] if closed == "stdin" else ["conformance", "nowhere"]) == 1
    if closed != "stdin":
        getattr(sys, closed).close()  # the stand-in
    monkeypatch.undo()
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 0 if closed == "stderr" else 1)


def test_results_stay_out_of_a_terminal_s_way(model, tmp_path, capsys):
    """A file's name can hold a line break or an escape code."""
    name = str(tmp_path / "a\n\x1b[31mb.wav")
    assert main(["transcribe", name]) == 1
    assert capsys.readouterr().err.endswith("a\\n\\x1b[31mb.wav: no such file\n")


def test_an_error_of_the_session_names_the_file(model, talk, other, capsys):
    def refuse(samples: int) -> None:
        raise AudioError("sample rate 8000 Hz is not for me")

    model.on_push = refuse
    assert main(["transcribe", talk]) == 1
    assert capsys.readouterr().err == (
        f"audiossm: error: {talk}: sample rate 8000 Hz is not for me\n"
    )


def test_an_encoding_without_a_letter_is_no_reason_to_fail():
    code = (
        "import sys\n"
        "from audiossm_apps import cli, models\n"
        "models.run_models = lambda args: print('na\\u00efve') or 0\n"
        "sys.exit(cli.main(['models']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "na\\xefve\n", "")


def test_split_channels_have_a_transcript_each(model, tmp_path, capsys):
    path = str(tmp_path / "call.wav")
    soundfile.write(path, np.stack([tone(0.1, 0.2), tone(0.3, 0.0)], axis=1), RATE)
    assert main(["transcribe", path, "--channels", "split"]) == 0
    assert capsys.readouterr().out == "w1 w2\nw3\n"
    assert main(["transcribe", path, "--channels", "split", "--format", "json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [(item["file"], item["text"]) for item in results] == [
        (f"{path} [channel 1]", "w1 w2"),
        (f"{path} [channel 2]", "w3"),
    ]
    assert main(["transcribe", path]) == 0
    assert capsys.readouterr().out == "w2 w1\n"


def test_raw_samples_come_through_standard_input(model, monkeypatch, capsys):
    samples = (tone(0.1, 0.4) * 32768).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(samples)))
    assert main(["transcribe", "-", "--raw-rate", str(RATE), "--format", "jsonl"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["file"], result["text"], result["duration_s"]) == ("-", "w1 w4", 1.0)


def test_a_flush_ends_a_word_at_its_second(model, talk, capsys):
    argv = ["transcribe", talk, "--format", "json", "--flush-at", "0.75,99,0.6"]
    assert main(argv) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert [(word["start_s"], word["end_s"]) for word in words[:4]] == [
        (0.0, 0.5),
        (0.5, 0.6),
        (0.6, 0.75),
        (0.75, 1.25),
    ]


def test_hot_words_are_read_from_a_file(model, talk, tmp_path, capsys):
    words = tmp_path / "hot.txt"
    words.write_text("New York\t2\nAnna\n")
    assert main(["transcribe", talk, "--hotwords", str(words)]) == 0
    assert capsys.readouterr() == (f"{TEXT}\n", "")
    assert model.hotwords == [("anna", 1.0), ("new york", 2.0)]
    assert main(["transcribe", talk]) == 0
    assert model.hotwords == []


def test_a_bad_line_of_hot_words_is_said_before_any_work(model, talk, tmp_path, capsys):
    words, output = tmp_path / "hot.txt", tmp_path / "out.txt"
    words.write_text("Anna\nroom 5\n")
    argv = ["transcribe", talk, "--hotwords", str(words), "--output", str(output)]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert (out, output.exists(), err.count("\n")) == ("", False, 1)
    assert f"{words}:2: hot word 'room 5' has '5'" in err


def test_a_bad_file_in_a_batch_costs_a_line_and_the_others_go_on(model, talk, other, capsys):
    missing = talk + "x"
    assert main(["transcribe", talk, missing, other]) == 1
    out, err = capsys.readouterr()
    assert out == f"{TEXT}\nw4\n"
    assert err.splitlines() == [
        f"audiossm: error: {missing}: no such file",
        "audiossm: 1 of 3 files failed",
    ]


@pytest.mark.parametrize("options", [[], ["--live"]])
def test_what_was_recognised_before_the_damage_is_printed(model, damaged, options, capsys):
    assert main(["transcribe", damaged, *options]) == 1
    out, err = capsys.readouterr()
    assert out == "w1 w2\n"
    assert err.startswith(f"audiossm: error: {damaged}: ") and err.count("\n") == 1


@pytest.mark.parametrize("kind", ["txt", "json", "jsonl"])
def test_ctrl_c_keeps_what_was_recognised(model, talk, kind, capsys):
    def press(samples: int) -> None:
        if samples > RATE:
            raise KeyboardInterrupt

    model.on_push = press
    assert main(["transcribe", talk, "--live", "--format", kind]) == 130
    out, err = capsys.readouterr()
    assert (out if kind == "txt" else json.loads(out)["text"] + "\n") == "w1 w2\n"
    assert err == "audiossm: stopped\n"


def test_ctrl_c_while_waiting_for_a_pipe_gives_its_last_words_too(model, monkeypatch, capsys):
    class Pipe(io.RawIOBase):
        pieces = [(tone(0.1, 0.4)[: RATE * 3 // 4] * 32768).astype("<i2").tobytes()]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            if not self.pieces:
                raise KeyboardInterrupt
            piece, rest = self.pieces[0][: len(buffer)], self.pieces[0][len(buffer) :]
            self.pieces[:] = [rest] if rest else []
            buffer[: len(piece)] = piece
            return len(piece)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(Pipe())))
    assert main(["transcribe", "-", "--raw-rate", str(RATE)]) == 130
    assert capsys.readouterr().out == "w1 w4\n"


def test_a_real_ctrl_c_ends_a_live_pipe_with_its_last_words(tmp_path):
    network = make_transcriber().network
    config = {"recogniser": to_dict(network.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, network.state_dict())
    samples = (read_speech() * 32767).astype("<i2").tobytes()
    command = [sys.executable, "-m", "audiossm_apps.cli", "transcribe", "--threads", "1"]
    # --raw: a writer would wait for words that come only after the signal
    options = ["--model", str(tmp_path / "tiny"), "--raw-rate", "16000", "--raw", "--live", "-"]
    whole = subprocess.run([*command, *options], input=samples, stdout=subprocess.PIPE)
    with subprocess.Popen(
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a test run in the background ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(samples)
        process.stdin.flush()
        first = process.stdout.read(1)  # it has begun
        process.send_signal(signal.SIGINT)
        heard = first + process.stdout.read()
        assert process.stderr.read() == b"audiossm: stopped\n"
    assert process.returncode == 130
    assert heard.endswith(b"\n")
    # what still waited for its look-ahead comes out with zeros in its place
    assert whole.stdout.startswith(heard[:-40])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["transcribe"], "required: FILE"),
        (["transcribe", "a.wav", "b.wav", "./a.wav"], "./a.wav is given twice"),
        (["transcribe", "-", "-"], "standard input (-) is given twice"),
        (["transcribe", "a.wav", "--raw-rate", "8000"], "--raw-rate is about standard input"),
        (["transcribe", "-", "--raw-rate", "0"], "'0' is not a whole number of at least 1"),
        (["transcribe", "a.wav", "--threads", "99999"], "is more than 1024 threads"),
        (["transcribe", "a.wav", "--threads", "x"], "'x' is not a whole number"),
        (["transcribe", "a.wav", "b.wav", "--format", "srt"], "--format srt holds one transcript"),
        (["transcribe", "a.wav", "--output", "a.wav"], "--output a.wav is one of the inputs"),
        (["transcribe", "a.wav", "--flush-at", "1,-2"], "'1,-2' is not a list of seconds"),
        (["transcribe", "a.wav", "--lookahead-ms", "100"], "invalid choice"),
        (["transcribe", "a.wav", "--hotwords", "h", "--decoder", "greedy"], "needs --decoder beam"),
        (["evaluate"], "required: TASK"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_reason(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_says_english_only_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from audiossm_apps.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'soundfile', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "English only" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["transcribe"],
        ["evaluate", "transcribe"],
        ["evaluate", "hotwords"],
        ["conformance"],
        ["models"],
        ["info"],
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert f"usage: audiossm {' '.join(command)}" in capsys.readouterr().out


def test_a_closed_pipe_is_quiet():
    code = (
        "import sys\n"
        "from audiossm_apps import cli, models\n"
        "def run(args):\n"
        "    while True: print('x' * 4096)\n"
        "models.run_models = run\n"
        "sys.exit(cli.main(['models']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_words_appear_on_a_terminal_as_they_come(model, talk, monkeypatch, capsys):
    monkeypatch.setattr(transcribe.sys.stdout, "isatty", lambda: True)
    assert main(["transcribe", talk, "--live"]) == 0
    # a terminal would overwrite the growing line; what stands at last is the text
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith(TEXT)
    assert "hm" in out and "hm" not in out.splitlines()[-1]


def test_info_tells_versions_and_devices(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("audiossm:", "torch:", "cuda:", "threads:", "models:", "numerics:"):
        assert name in out


def test_evaluate_counts_errors_and_lists_what_it_could_not_read(
    model, talk, other, tmp_path, capsys
):
    lines = [
        {"key": "a", "path": talk, "text": "w1 w2 w5", "source": "x", "seconds": 2.25},
        {"key": "b", "path": other, "text": "w4", "source": "y"},
        {"key": "c", "path": "missing.wav", "text": "one two", "source": "y"},
    ]
    manifest = tmp_path / "set.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    assert main(["evaluate", "transcribe", str(manifest), "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == f"audiossm: error: c: {tmp_path / 'missing.wav'}: no such file\n"
    result = json.loads(out)
    counts = [result[name] for name in ("substitutions", "deletions", "insertions", "words")]
    # digits fall away, so that "w1 w2 w5" is "w w w" and the fake's four words are one too many
    assert counts == [0, 2, 1, 6]
    assert result["wer"] == 3 / 6
    assert (result["utterances"], result["audio_s"], result["model"]) == (3, 2.75, "fake")
    assert result["per_source"]["x"]["insertions"] == 1
    assert result["per_source"]["y"]["deletions"] == 2
    assert result["rtf"] == pytest.approx(result["processing_s"] / 2.75, abs=1e-3)
    assert {"processor", "threads", "torch"} <= result["machine"].keys()

    assert main(["evaluate", "transcribe", str(manifest), "--limit", "2", "--by", "lang"]) == 0
    assert "(none)" in capsys.readouterr().out


def test_evaluate_keeps_scores_and_compares_with_them(model, talk, other, tmp_path, capsys):
    lines = [
        {"key": "a", "path": talk, "text": "w1 w2 w5"},
        {"key": "b", "path": other, "text": "w\u2028"},  # ends a line for some
    ]
    manifest, scores = tmp_path / "set.jsonl", tmp_path / "scores.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    command = ["evaluate", "transcribe", str(manifest)]
    assert main([*command, "--scores", str(scores), "--json"]) == 0
    now = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in scores.read_text().split("\n")[:-1]]
    assert [(row["key"], row["words"]) for row in rows] == [("a", 3), ("b", 1)]
    assert now["wer_interval"]["drawn"] == "2 utterances" and "against" not in now

    rows[0]["deletions"] += 3  # so a model of before had
    scores.write_text("\n".join(map(json.dumps, rows)))
    assert main([*command, "--against", str(scores), "--json"]) == 0
    change = json.loads(capsys.readouterr().out)["against"]
    assert (change["before"], change["now"]) == (now["wer"] + 3 / 4, now["wer"])
    assert change["fewer"] == 1 - change["now"] / change["before"]
    assert main([*command, "--against", str(scores)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "by bootstrap over 2 utterances" in out and "errors -75.0 %" in out

    for text, told in (
        (json.dumps(rows[0]), "no 'b' with the text of"),
        ('{"key": 1}', "scores.jsonl:1: no line of scores"),
        (json.dumps(rows[0] | {"reference": "w9"}), "no 'a' with the text of"),
    ):
        scores.write_text(text)
        assert main([*command, "--against", str(scores)]) == 1
        assert told in capsys.readouterr().err


def test_evaluate_says_which_line_of_a_manifest_is_wrong(model, tmp_path, capsys):
    manifest = tmp_path / "set.jsonl"
    manifest.write_text('{"key": "a"}\n')
    assert main(["evaluate", "transcribe", str(manifest)]) == 1
    assert f"{manifest}:1: " in capsys.readouterr().err


def test_garbage_is_looked_for_again_after_a_model_was_loaded_or_refused(talk, tmp_path, capsys):
    gc.unfreeze()
    assert main(["transcribe", "--model", str(tmp_path), str(talk)]) == 1
    assert "not a model folder" in capsys.readouterr().err
    assert gc.isenabled() and gc.get_freeze_count() > 0


@pytest.mark.parametrize("given", [None, "7"])
def test_threads_spin_little_unless_told(given, monkeypatch, capsys):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if given:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    assert main(["models"]) == 0
    assert os.environ["GOMP_SPINCOUNT"] == (given or "1000")
