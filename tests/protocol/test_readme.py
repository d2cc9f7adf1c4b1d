"""What the protocol's README shows is said so, and its Python runs."""

import asyncio
import re
from pathlib import Path

import pytest

from audiossm.protocol import ServerProtocol
from audiossm.protocol import native as n
from audiossm.protocol.encoding import Opus
from live_service import run_live
from tiny_model import make_transcriber

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "audiossm" / "protocol" / "README.md").read_text(encoding="utf-8")
TALKS = [
    block
    for block in re.findall(r"^```\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    if "S>" in block
]


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
    shown = set(re.findall(r'^[CS]> {"type":"(\w+)"', README, flags=re.MULTILINE))
    assert shown == n.REQUESTS.keys() | n.REPLIES.keys()


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
