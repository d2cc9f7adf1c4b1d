"""``audiossm codec`` as a person meets it: files, pipes, damage, exit codes."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.streaming import AudioCodec
from audiossm_apps import codec as command
from audiossm_apps.cli import main
from tiny_model import SPEECH, read_speech
from toy_codec import make_codec

RIVER = str(SPEECH / "river.flac")
STEREO = str(SPEECH / "stereo-44100.flac")


def save(folder: Path, seed: int = 3) -> str:
    codec = make_codec(seed)
    save_model(folder, "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    return str(folder)


@pytest.fixture
def model(tmp_path) -> list[str]:
    return ["--model", save(tmp_path / "toy")]


@pytest.fixture
def encoded(model, tmp_path) -> Path:
    """River, 5.035 s, in 2 groups."""
    path = tmp_path / "river.ssma"
    assert main(["codec", "encode", RIVER, str(path), "--groups", "2", *model]) == 0
    return path


def feed(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def test_there_and_back_keeps_length_and_channels(model, tmp_path, capfdbinary):
    codes, wav = str(tmp_path / "a.ssma"), str(tmp_path / "a.wav")
    assert main(["codec", "encode", STEREO, codes, *model]) == 0
    assert main(["codec", "decode", codes, wav, *model]) == 0
    assert capfdbinary.readouterr() == (b"", b"")
    found, rate = soundfile.read(wav, dtype="float32")
    assert (found.shape, rate) == ((62720, 2), 16000)
    assert not soundfile.SoundFile(wav).comment  # nobody generated it
    codec = AudioCodec.load(model[1])
    expected = codec.decode(codec.encode(STEREO)).clip(-1, 1)
    np.testing.assert_allclose(found.T, expected, atol=1e-4)


def test_pipes_give_the_same_bytes(model, encoded, tmp_path, monkeypatch, capfdbinary):
    feed(monkeypatch, Path(RIVER).read_bytes())
    assert main(["codec", "encode", "-", "-", "--groups", "2", *model]) == 0
    out, err = capfdbinary.readouterr()
    assert (out, err) == (encoded.read_bytes(), b"")
    wav = tmp_path / "a.wav"
    assert main(["codec", "decode", str(encoded), str(wav), *model]) == 0
    assert main(["codec", "decode", str(encoded), "-", *model]) == 0
    assert capfdbinary.readouterr() == (wav.read_bytes(), b"")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(out))))
    assert main(["codec", "decode", "-", "-", *model]) == 0
    assert capfdbinary.readouterr().out[44:] == wav.read_bytes()[44:]


def test_raw_samples_are_encoded_as_a_file_of_them(model, encoded, monkeypatch, capfdbinary):
    samples = soundfile.read(RIVER, dtype="int16")[0].astype("<i2").tobytes()
    feed(monkeypatch, samples)
    argv = ["codec", "encode", "-", "-", "--raw-rate", "16000", "--groups", "2", *model]
    assert main(argv) == 0
    assert capfdbinary.readouterr().out == encoded.read_bytes()


def test_a_part_is_decoded(model, encoded, tmp_path):
    whole, part = tmp_path / "a.wav", tmp_path / "b.wav"
    assert main(["codec", "decode", str(encoded), str(whole), *model]) == 0
    argv = ["codec", "decode", str(encoded), str(part), "--start", "1.5", "--duration", "0.25"]
    assert main([*argv, *model]) == 0
    samples, _ = soundfile.read(part)
    assert len(samples) == 4000
    np.testing.assert_allclose(samples, soundfile.read(whole)[0][24000:28000], atol=1e-4)
    argv[argv.index("1.5")] = "5"
    assert main([*argv, *model]) == 0
    assert soundfile.info(part).frames == 560


def test_info_tells_what_is_in_a_file(encoded, capsys):
    assert main(["codec", "info", str(encoded)]) == 0
    out, err = capsys.readouterr()
    for line in (
        "codec:     toy",
        "duration:  5.04 s (80560 samples)",
        "channels:  1",
        "groups:    2 of 1000 codes",
        "bit rate:  1 kbit/s of codes",
        "frames:    253 in blocks of 50, 0 lost",
    ):
        assert line in out.splitlines()
    assert not err
    # the codec isn't needed
    assert "torch" not in out


def test_damage_is_one_line_and_the_rest_is_decoded(model, encoded, tmp_path, capsys):
    data = bytearray(encoded.read_bytes())
    data[400] ^= 1
    encoded.write_bytes(data)
    wav = tmp_path / "a.wav"
    message = f"audiossm: error: {encoded}: damaged from 2.00 to 3.00 s\n"
    assert main(["codec", "decode", str(encoded), str(wav), *model]) == 1
    assert capsys.readouterr() == ("", message)
    assert soundfile.info(wav).frames == 80560
    assert main(["codec", "info", str(encoded)]) == 1
    out, err = capsys.readouterr()
    assert err == message and "253 in blocks of 50, 50 lost" in out


def test_a_file_cut_short_is_one_line_and_the_rest_is_decoded(model, encoded, tmp_path, capsys):
    encoded.write_bytes(encoded.read_bytes()[:-15])
    wav = tmp_path / "a.wav"
    assert main(["codec", "decode", str(encoded), str(wav), *model]) == 1
    end = "cut short after 5.00 s: is the copy or download incomplete?\n"
    assert capsys.readouterr().err == f"audiossm: error: {encoded}: {end}"
    assert soundfile.info(wav).frames == 80000 - 240
    assert main(["codec", "info", str(encoded)]) == 1
    assert "duration:  5.00 s (80000 samples)" in capsys.readouterr().out


def test_codes_of_another_codec_are_refused_with_both_hashes(model, encoded, tmp_path, capsys):
    other = save(tmp_path / "other", seed=4)
    wav = tmp_path / "a.wav"
    wav.write_bytes(b"what I had before")
    assert main(["codec", "decode", str(encoded), str(wav), "--model", other]) == 1
    ours, theirs = (AudioCodec.load(name).codes_hash for name in (model[1], other))
    assert capsys.readouterr().err == (
        f"audiossm: error: {encoded}: made by codec 'toy' with codes of hash {ours}, but those of "
        f"this one, 'other', have {theirs}: its codes mean other sounds\n"
    )
    assert wav.read_bytes() == b"what I had before"


def test_a_file_may_not_choose_a_folder_of_ours(monkeypatch):
    monkeypatch.setattr("audiossm.checkpoint.model_names", lambda: ["a", "b"])
    assert command._find_codec("a") == "a"
    assert command._find_codec("../a") is command._find_codec("/tmp") is None


def test_an_output_is_replaced_by_a_result_and_kept_without_one(model, tmp_path, capsys):
    out, gone = tmp_path / "out.ssma", str(tmp_path / "gone.wav")
    assert main(["codec", "encode", gone, str(out), *model]) == 1
    assert not out.exists()  # no empty file is left
    out.write_bytes(b"before" * 9999)
    assert main(["codec", "encode", gone, str(out), *model]) == 1
    assert out.read_bytes() == b"before" * 9999
    assert main(["codec", "encode", RIVER, str(out), *model]) == 0
    assert b"before" not in out.read_bytes()
    wav = tmp_path / "out.wav"
    wav.write_bytes(b"before" * 99999)
    assert main(["codec", "decode", gone, str(wav), *model]) == 1
    assert wav.read_bytes() == b"before" * 99999
    assert main(["codec", "decode", str(out), str(wav), *model]) == 0
    assert soundfile.info(wav).frames == 80560 and wav.stat().st_size == 44 + 2 * 80560
    assert capsys.readouterr().err.count("no such file") == 3


def test_damaged_audio_gives_the_codes_before_the_damage(model, tmp_path, capsys):
    audio = read_speech()[:16000].copy()
    audio[12000] = np.nan
    soundfile.write(tmp_path / "bad.wav", audio, 16000, subtype="FLOAT")
    out = tmp_path / "out.ssma"
    assert main(["codec", "encode", str(tmp_path / "bad.wav"), str(out), *model]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"audiossm: error: {tmp_path / 'bad.wav'}: ") and err.count("\n") == 1
    assert main(["codec", "info", str(out)]) == 0
    assert "(12000 samples)" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"RIFF", os.urandom(3000), b"\x89ssma\r\n\x01\xff\xff"])
def test_junk_is_one_line(data, tmp_path, capsys):
    junk = tmp_path / "junk"
    junk.write_bytes(data)
    assert main(["codec", "info", str(junk)]) == 1
    assert main(["codec", "decode", str(junk), str(tmp_path / "a.wav")]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == err.count(f"audiossm: error: {junk}: ") == 2


def test_what_cannot_be_done_is_one_line(model, encoded, tmp_path, capsys):
    assert main(["codec", "encode", RIVER, "/dev/full", *model]) == 1
    assert main(["codec", "decode", str(encoded), str(tmp_path / "no" / "a.wav")]) == 1
    assert main(["codec", "encode", RIVER, str(tmp_path / "a"), "--groups", "9", *model]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "audiossm: error: /dev/full: can't write the result: No space left on device",
        f"audiossm: error: {tmp_path}/no/a.wav: can't write there: No such file or directory",
        "audiossm: error: 9 groups: codec 'toy' has 1 to 4",
    ]


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(closed, encoded, model, capsys, monkeypatch):
    monkeypatch.setattr(sys, closed, None)
    names = ("-", "/dev/null") if closed == "stdin" else (RIVER, "-")
    assert main(["codec", "encode", *names, *model]) == 1
    if closed == "stdout":
        sys.stdout.close()  # the stand-in
    monkeypatch.undo()
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_ends_a_live_pipe_with_a_whole_file(model, tmp_path):
    out = tmp_path / "out.ssma"
    argv = ["codec", "encode", "-", str(out), "--raw-rate", "16000", "--threads", "1", *model]
    with subprocess.Popen(
        [sys.executable, "-m", "audiossm_apps.cli", *argv],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a test run in the background ignores the signal, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin and process.stderr
        process.stdin.write((read_speech()[:40000] * 32767).astype("<i2").tobytes())
        process.stdin.flush()
        while not (out.exists() and out.stat().st_size):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"audiossm: stopped\n"
    assert process.returncode == 130
    assert main(["codec", "info", str(out)]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["codec"], "required: TASK"),
        (["codec", "encode", "a.wav"], "required: OUT"),
        (["codec", "encode", "a.wav", "./a.wav"], "./a.wav is the input: it would be overwritten"),
        (["codec", "encode", "a.wav", "b", "--raw-rate", "8000"], "--raw-rate is about standard"),
        (["codec", "encode", "a.wav", "b", "--groups", "0"], "'0' is not a whole number"),
        (["codec", "decode", "a.ssma", "b.mp3"], "b.mp3: decoded audio is written as WAV"),
        (["codec", "decode", "a", "b.wav", "--start", "-1"], "'-1' is not a number of seconds"),
        (["codec", "decode", "a", "b.wav", "--duration", "0"], "'0' is not a number above 0"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_reason(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_codes_do_not_go_to_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(command.sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        main(["codec", "encode", RIVER, "-"])
    assert "standard output is a terminal: give a file or a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["encode", "decode", "info"])
def test_help_loads_nothing_heavy(task):
    code = (
        "import sys\n"
        "from audiossm_apps.cli import main\n"
        f"try: main(['codec', '{task}', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'numpy', 'soundfile', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: audiossm codec {task}" in done.stdout


def test_a_bar_shows_on_a_terminal_only(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.sys.stderr, "isatty", lambda: True)
    assert main(["codec", "encode", RIVER, str(tmp_path / "a.ssma"), *model]) == 0
    out, err = capsys.readouterr()
    assert not out and "river.flac" in err
