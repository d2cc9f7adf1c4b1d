"""What the protocol's README shows is said so, and its Python runs."""

import asyncio
import re
from pathlib import Path

import pytest

from audiossm.protocol import ServerProtocol, speak
from audiossm.protocol import native as n
from audiossm.protocol.encoding import Opus, sample_width
from live_service import run_live
from tiny_model import make_transcriber

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "audiossm" / "protocol" / "README.md").read_text(encoding="utf-8")
HEARING, SPEECH = README.split("\n# The native protocol for speech")


def find_talks(text):
    blocks = re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "S>" in block]


TALKS = find_talks(HEARING)


@pytest.mark.parametrize("talk", TALKS)
def test_each_line_is_legal_where_it_stands(talk):
    server = ServerProtocol()
    events = []
    for line in talk.splitlines():
        who, _, text = line.partition(" ")
        if audio := re.fullmatch(r"<(\d+) bytes>", text):
            assert isinstance(server.receive(bytes(int(audio[1]))), n.Audio | Opus)
        elif who == "C>":
            server.receive(text)
        else:
            reply = n.decode_reply(text)
            if isinstance(reply, n.EVENTS):
                events.append(reply.seq)
    assert events == list(range(events[0], events[0] + len(events))) if events else True


def test_every_message_is_shown():
    for text, kinds in ((HEARING, n), (SPEECH, speak)):
        shown = set(re.findall(r'^[CS]> {"type":"(\w+)"', text, flags=re.MULTILINE))
        assert shown == kinds.REQUESTS.keys() | kinds.REPLIES.keys()


@pytest.mark.parametrize("talk", find_talks(SPEECH))
def test_each_line_about_speech_is_legal_where_it_stands(talk):
    server, num_samples, width, cancelled = speak.SpeakProtocol(), 0, 1, False
    for line in talk.splitlines():
        who, _, text = line.partition(" ")
        if audio := re.fullmatch(r"<(\d+) bytes>", text):
            assert who == "S>" and server.state != "new" or cancelled
            num_samples += int(audio[1]) // width
        elif who == "C>":
            request = server.receive(text)
            cancelled = isinstance(request, speak.Cancel)
        else:
            match speak.decode_speak_reply(text):
                case speak.Started() as started:
                    num_samples, width = 0, sample_width(started.encoding)
                case speak.Finished(samples=samples):
                    assert samples == num_samples
                    server.end()
                case speak.Flushed(samples=samples):
                    assert samples == num_samples
                case speak.Cancelled(samples=samples):
                    assert samples == num_samples and cancelled
                    cancelled = False


def test_the_python_runs(monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)

    async def test(service, address):
        source = code.replace("127.0.0.1:8765", address)
        assert source != code
        await asyncio.to_thread(exec, compile(source, "README.md", "exec"), {})

    run_live(test)
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    expected = make_transcriber().transcribe("assets/audio/first-light.flac").text
    assert " ".join(words) == expected
