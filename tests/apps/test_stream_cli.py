"""``audiossm stream``: a recording to a live service, and what it says of it."""

import asyncio
import io
import sys
import wave
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm.audio.media import has_av
from audiossm.audio.opus import OpusStream
from audiossm.audio.opus_writer import OpusWriter
from audiossm.protocol import decode_samples, encode_samples
from audiossm.streaming import Word
from audiossm_apps.cli import main
from audiossm_apps.live.gate import Gate
from live_service import run_live
from tiny_model import make_transcriber, read_speech

RATE = 16000
SPEECH = decode_samples(encode_samples(read_speech()[:48000], "s16"), "s16")
needs_av = pytest.mark.skipif(not has_av(), reason="there is no PyAV here")


@pytest.fixture
def path(tmp_path):
    soundfile.write(tmp_path / "talk.wav", SPEECH, RATE)
    return str(tmp_path / "talk.wav")


def alone(samples: np.ndarray, rate: int = RATE) -> str:
    session = make_transcriber().session(rate)
    events = session.push(samples) + session.finish()
    return " ".join(event.word for event in events if isinstance(event, Word))


def stream(*argv: str, **settings: object) -> int:
    """Run the command against a service."""
    codes = []

    async def test(_: object, address: str) -> None:
        codes.append(await asyncio.to_thread(main, ["stream", *argv, "--server", address]))

    run_live(test, **settings)
    return codes[0]


@pytest.mark.parametrize("options", [[], ["--raw"], ["--speed", "4"]])
def test_it_writes_what_transcribe_writes_of_the_same(path, capsys, options):
    assert stream(path, *options) == 0
    assert capsys.readouterr().out == f"{alone(SPEECH)}\n" != "\n"


@needs_av
def test_as_opus_it_writes_what_is_heard_of_what_was_sent(path, capsys):
    assert stream(path, "--opus") == 0
    writer = OpusWriter(RATE)
    pages = writer.push(SPEECH) + writer.finish()
    data = writer.head + b"".join(page.data for page in pages)
    heard = np.concatenate([*OpusStream().push(data)])
    assert capsys.readouterr().out == f"{alone(heard, OpusStream.sample_rate)}\n" != "\n"


def test_a_pipe_of_raw_samples_is_streamed(capsys, monkeypatch):
    pipe = SimpleNamespace(buffer=io.BytesIO(encode_samples(SPEECH, "s16")))
    monkeypatch.setattr(sys, "stdin", pipe)
    assert stream("-", "--raw-rate", str(RATE)) == 0
    assert capsys.readouterr().out == f"{alone(SPEECH)}\n"


def test_what_was_heard_before_damage_counts(path, capsys, tmp_path):
    with wave.open(path) as whole:
        size = whole.getnframes()
    cut = tmp_path / "cut.wav"
    with open(path, "rb") as file:
        cut.write_bytes(file.read()[: 44 + size])
    assert stream(str(cut)) == 1
    out, err = capsys.readouterr()
    assert out == f"{alone(SPEECH[: size // 2])}\n" != "\n"
    assert "cut.wav" in err and "Traceback" not in err


def test_a_wrong_key_is_said_in_a_line(path, capsys):
    assert stream(path, "--key", "no", gate=Gate({"secret": 1})) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("audiossm: error: ws://") and "HTTP 401" in err
    assert stream(path, "--key", "secret", gate=Gate({"secret": 1})) == 0
