"""The browser page: what is served, and that its client loses nothing (in node, if it is there)."""

import asyncio
import json
import random
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import audiossm_apps
from audiossm_apps.live.gate import Gate
from live_service import run_live
from protocol_runs import ToyServer

PAGE = Path(audiossm_apps.__file__).parent / "live" / "page"
START = '{"type":"start","version":1}'
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")


class Links(HTMLParser):
    """Collects what a page loads, and what it has inline."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                self.loaded.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")


def read_links() -> Links:
    links = Links()
    links.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    return links


def get(address: str, path: str) -> tuple[Any, bytes]:
    with urllib.request.urlopen(f"http://{address}{path}") as answer:
        return answer.headers, answer.read()


def post(address: str, path: str) -> None:
    urllib.request.urlopen(f"http://{address}{path}", data=b"").close()


def test_the_page_and_its_files_are_served_as_what_they_are():
    kinds = {
        "": "text/html; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
        "audiossm.js": "text/javascript; charset=utf-8",
        "recorder.js": "text/javascript; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
    }

    async def test(_, address):
        for path, kind in kinds.items():
            headers, body = await asyncio.to_thread(get, address, f"/{path}")
            assert headers["content-type"] == kind
            assert headers["x-content-type-options"] == "nosniff"
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';")
            assert "unsafe" not in policy and "*" not in policy
            assert body == (PAGE / (path or "index.html")).read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await asyncio.to_thread(get, address, "/page/index.html")

    assert {path or "index.html" for path in kinds} == {path.name for path in PAGE.iterdir()}
    run_live(test)


def test_the_page_needs_no_key_as_it_is_where_one_is_typed():
    async def test(_, address):
        assert b"API key" in (await asyncio.to_thread(get, address, "/"))[1]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await asyncio.to_thread(post, address, "/v1/listen")

    run_live(test, gate=Gate({"secret": 1}))


def test_the_page_loads_only_its_own_files_and_has_nothing_inline():
    links = read_links()
    assert links.loaded and all((PAGE / name).is_file() for name in links.loaded)
    assert links.inline == []
    for path in PAGE.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert "http" not in text.replace("https:", "").replace("https pages", ""), path
        assert "innerHTML" not in text and "eval(" not in text, path


def test_the_script_looks_for_elements_that_the_page_has():
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    wanted = set(re.findall(r'\b(?:at|allow|onClick)\("([^"]*)"', script))
    assert wanted and wanted <= set(read_links().ids)


class Client:
    """The page's Protocol, in node."""

    def __init__(self) -> None:
        script = Path(__file__).parent / "protocol.mjs"
        self.process = subprocess.Popen(
            ["node", str(script), str(PAGE / "audiossm.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.state: dict[str, Any] = {}

    def call(self, *call: Any) -> Any:
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.state = answer.get("state", {})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def outgoing(self) -> list[str | bytes]:
        messages = self.call("outgoing")
        return [m if isinstance(m, str) else np.array(m, "<i2").tobytes() for m in messages]


@pytest.fixture
def client(tmp_path):
    made = Client()
    yield made
    made.process.stdin.close()
    assert made.process.wait(10) == 0
    made.process.stdout.close()


@needs_node
@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_lost_the_page_reads_the_same_events(client, seed):
    """Connections and servers are lost at any moment, with anything on the way."""
    rng = random.Random(seed)
    server = ToyServer(keeps_within=seed % 2 == 0)
    there: list[str | bytes] = []
    back: list[str] = []
    read: list[dict[str, Any]] = []
    straight = ToyServer(credit=10**9)
    straight.receive(START)

    def connect() -> None:
        there.clear()
        back.clear()
        server.connect()
        client.call("connected")

    def talk(turns: int) -> None:
        for _ in range(turns):
            there.extend(client.outgoing())
            if not there and not back:
                return
            if there:
                back.extend(server.receive(there.pop(0)))
            if back:
                message = back.pop(0)
                reply = client.call("receive", message)
                if reply and reply["type"] in ("word", "flushed", "finished"):
                    read.append(reply)
                if json.loads(message)["type"] == "error":
                    connect()

    client.call("new", {})
    connect()
    for _ in range(rng.randrange(40)):
        match rng.choice(["audio", "audio", "flush", "keep", "lose", "forget", "talk"]):
            case "audio":
                samples = [rng.randrange(-1000, 1000) for _ in range(rng.randrange(1, 400))]
                client.call("audio", samples)
                straight.receive(np.array(samples, "<i2").tobytes())
            case "flush":
                client.call("control", "flush", {})
                straight.receive('{"type":"flush"}')
            case "keep":
                back += server.keep()
            case "lose":
                talk(rng.randrange(30))
                connect()
            case "forget" if client.state["durable"] + client.state["durableControls"] == 0:
                server.kept.clear()
                server.handle = None
                connect()
            case "talk":
                talk(rng.randrange(1, 6))
    client.call("finish")
    straight.receive('{"type":"finish"}')
    talk(10_000)
    assert client.state["finished"]
    told = [(event.type, event.seq, getattr(event, "word", None)) for event in straight.events]
    assert [(reply["type"], reply["seq"], reply.get("word")) for reply in read] == told


@needs_node
def test_the_page_keeps_no_more_than_what_a_server_may_lose(client):
    server = ToyServer(credit=10**6)
    client.call("new", {})
    client.call("connected")
    for _ in range(50):
        client.call("audio", [0] * 1000)
        for message in client.outgoing():
            for reply in server.receive(message) + server.keep():
                client.call("receive", reply)
        assert client.state["kept"] <= 1000
    assert client.state["durable"] == 50_000 and client.state["waiting"] == 0


@needs_node
def test_audio_of_the_page_waits_for_credit(client):
    server = ToyServer(credit=350)
    client.call("new", {})
    client.call("connected")
    client.call("audio", [0] * 1000)
    (start,) = client.outgoing()
    client.call("receive", server.receive(start)[0])
    (audio,) = client.outgoing()
    assert len(audio) == 700 and client.outgoing() == [] and client.state["waiting"] == 650


@needs_node
def test_an_event_that_is_missing_is_never_passed_over(client):
    client.call("new", {})
    client.call("connected")
    with pytest.raises(RuntimeError, match="StreamError: event 2 came after event 0"):
        client.call("receive", '{"type":"flushed","seq":2,"received":0}')


@needs_node
def test_the_page_shows_each_word_once(client):
    def word(text: str) -> dict[str, str]:
        return {"type": "word", "word": text}

    client.call("new", {})
    shown = [
        client.call("show", reply)
        for reply in [
            {"type": "partial", "text": "the fir"},
            word("the"),
            word("first"),
            {"type": "partial", "text": "the first li"},
            {"type": "written", "text": "The", "word": "the"},
            word("twenty"),
            {"type": "partial", "text": "first twenty one"},
            word("one"),
            {"type": "written", "text": "first", "word": "first"},
            {"type": "written", "text": "21.", "word": "twenty one"},
            {"type": "finished"},
        ]
    ]
    assert shown == [
        [[], "the fir"],
        [[], "the fir"],
        [[], "the first"],
        [[], "the first li"],
        [["The"], "first li"],
        [[], "first twenty"],
        [[], "first twenty one"],
        [[], "first twenty one"],
        [["first"], "twenty one"],
        [["21."], ""],
        [[], ""],
    ]


@needs_node
def test_plain_words_are_final_where_nothing_writes_them(client):
    client.call("new", {})
    assert client.call("show", {"type": "word", "word": "the"}) == [[], "the"]
    assert client.call("show", {"type": "partial", "text": "fir"}) == [["the"], "fir"]
    assert client.call("show", {"type": "word", "word": "first"}) == [["first"], ""]
    client.call("new", {})
    assert client.call("show", {"type": "word", "word": "the"}) == [[], "the"]
    assert client.call("show", {"type": "finished"}) == [["the"], ""]


@needs_node
@pytest.mark.parametrize("writes", [True, False])
def test_a_paragraph_ends_with_a_pause(client, writes):
    def say(text: str) -> list[Any]:
        said = client.call("said", {"type": "word", "word": text})
        if writes:
            assert said == [[], False]
            said = client.call("said", {"type": "written", "text": text, "word": text})
        return said

    def end(rule: str) -> list[Any]:
        return client.call("said", {"type": "endpoint", "rule": rule})

    client.call("new", {})
    # who writes no text shows plain words when something says that nothing else will come
    assert say("one") == ([["one"], False] if writes else [[], False])
    assert end("pause") == ([[], False] if writes else [["one"], False])
    assert end("silence") == [[], False]
    assert say("two") == [["two"], True]
    assert say("three") == [["three"], False]
    assert end("length") == [[], False]
    assert say("four") == [["four"], False]
    assert end("end") == [[], False]
    assert say("five") == [["five"], True]


@needs_node
def test_the_recorder_says_nothing_after_its_end():
    script = """
        let Recorder;
        const said = [];
        globalThis.sampleRate = 1000;
        globalThis.AudioWorkletProcessor = class {
          port = { postMessage: (data) => said.push(data && [...data.samples]) };
        };
        globalThis.registerProcessor = (_, made) => { Recorder = made; };
        await import(process.argv[1]);
        const recorder = new Recorder();
        const block = (value) => recorder.process([[new Float32Array(30).fill(value)]]);
        const going = [block(0.25), block(0.5)];
        recorder.port.onmessage();
        going.push(block(0.75), block(0.75));
        console.log(JSON.stringify([said, going]));
    """
    command = ["node", "--input-type=module", "-e", script, (PAGE / "recorder.js").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, going = json.loads(done.stdout)
    assert said == [[8192] * 30 + [16384] * 10, [16384] * 20, None]
    assert going == [True, True, False, False]
