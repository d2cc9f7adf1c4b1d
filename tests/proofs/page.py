"""Proof that the browser page works: Chromium hears a recording by its microphone.

    python tests/proofs/page.py                        needs 'chromium' on the path
    python tests/proofs/page.py --screenshot page.png
    python tests/proofs/page.py --speaker DIR          with a generator that isn't shipped

A headless Chromium gets the committed recording as its microphone, at the pace of speech, and opens
the page of an ``audiossm serve``. The words on the page must be those that ``transcribe`` writes of
the recording; so must they be when the connection is cut meanwhile, and when a file is opened. The
page must say nothing in the console. One of the three goes by keyboard alone: the tabulator has to
reach everything, in the order of the page, each with an outline, and what a screen reader is told
has to have names. Where a generator is shipped, or named, the page also speaks: a text by the
keyboard, each of its words marked while it is heard; what was heard; and no more once it is
stopped. The exit code is 1 otherwise.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import soundfile
import websockets

from audiossm.streaming import Transcriber

AUDIO = Path(__file__).parents[2] / "assets" / "audio" / "first-light.flac"
FIRST_WORDS = "the first light of morning".split()
SILENCE_S = 2.0
# where the tabulator goes, and what needs a name
ORDER = ["microphone", "choose", "cut", "copy", "text", "SUMMARY"]
SPEECH_ORDER = ["say", "voice", "speak", "answer"]
NAMED = {"button", "combobox", "meter", "textbox", "region", "heading", "DisclosureTriangle"}
SAID = "The old house stood at the river."


class Browser:
    """A page of a browser, by the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.numbers = socket, itertools.count(1)
        self.answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.console: list[str] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await self._take()

    async def _take(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            elif message["method"] == "Log.entryAdded":
                self.console.append(message["params"]["entry"]["text"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.console.append(str(message["params"]["exceptionDetails"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and return its result."""
        number = next(self.numbers)
        self.answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(self.answers[number], 60)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def run(self, code: str) -> Any:
        """Run JavaScript in the page, as if somebody had clicked, and return its value."""
        result = await self.call(
            "Runtime.evaluate", expression=code, userGesture=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    async def text(self, name: str) -> str:
        """Return what an element says."""
        return await self.run(f"document.getElementById('{name}').textContent.trim()")

    async def until(self, name: str, said: str, timeout_s: float = 60.0) -> None:
        """Wait until an element says something."""
        async with asyncio.timeout(timeout_s):
            while not re.search(said, await self.text(name)):
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def open_page(url: str, wav: Path, folder: Path) -> AsyncIterator[Browser]:
    """Open a page in a new browser whose microphone plays a file once."""
    command = [
        *("chromium", "--headless=new", "--disable-gpu", "--remote-debugging-port=0"),
        *(f"--user-data-dir={folder}", "--use-fake-ui-for-media-stream"),
        *("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={wav}%noloop"),
        *("--window-size=900,900", "about:blank"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # root has none
    ]
    with open(folder.with_suffix(".log"), "wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        ports = folder / "DevToolsActivePort"
        async with asyncio.timeout(60):
            while not (ports.exists() and ports.read_text().count("\n")):
                await asyncio.sleep(0.1)
        port, path = ports.read_text().split("\n")[:2]
        async with websockets.connect(f"ws://127.0.0.1:{port}{path}") as root:
            target = await Browser(root).call("Target.createTarget", url="about:blank")
        address = f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
        async with websockets.connect(address, max_size=None) as socket:
            page = Browser(socket)
            await page.call("Log.enable")
            await page.call("Runtime.enable")
            await page.call("Page.enable")
            await page.call("DOM.enable")
            await page.call("Page.navigate", url=url)
            async with asyncio.timeout(30):
                while not await page.run(
                    f"document.readyState == 'complete' && location == '{url}'"
                ):
                    await asyncio.sleep(0.1)
            yield page
    finally:
        process.terminate()
        await process.wait()


async def press(page: Browser, key: str) -> None:
    """Press a key and let it go."""
    text = {
        "Enter": {"text": "\r", "windowsVirtualKeyCode": 13},
        "Tab": {"windowsVirtualKeyCode": 9},
    }
    for kind in ("keyDown", "keyUp"):
        await page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **text[key])


async def go_by_keyboard(page: Browser) -> list[str]:
    """Tab once around the page and then to the microphone; return what is wrong."""
    wrong, seen = [], []
    look = "(() => {{ const e = document.activeElement; return {0}; }})()"
    for _ in range(20):
        await press(page, "Tab")
        name = await page.run(look.format("e.id || e.tagName"))
        if name in seen or name == "BODY":
            break
        seen.append(name)
        style = "getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth"
        if await page.run(look.format(style)) != "solid3px":
            wrong.append(f"{name} has no outline when it has the focus")
    order = list(ORDER)
    if not await page.run("document.getElementById('speaking').hidden"):
        order[-1:-1] = SPEECH_ORDER
    if seen != order:
        wrong.append(f"the tabulator goes {seen}, not {order}")
    await page.run("document.activeElement.blur()")
    while await page.run(look.format("e.id")) != "microphone":
        await press(page, "Tab")
    return wrong


async def find_nameless(page: Browser) -> list[str]:
    """Return what a screen reader has no name for, and what it isn't told of."""
    await page.call("Accessibility.enable")
    nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    shown = [node for node in nodes if not node["ignored"]]
    roles = [node["role"]["value"] for node in shown]
    wrong = [
        f"a {node['role']['value']} without a name"
        for node in shown
        if node["role"]["value"] in NAMED and not node.get("name", {}).get("value")
    ]
    wrong += [f"there is no {role}" for role in ("main", "heading", "alert") if role not in roles]
    live = [
        prop["value"]["value"]
        for node in shown
        for prop in node.get("properties", [])
        if prop["name"] == "live"
    ]
    if live.count("polite") < 2 or "assertive" not in live:
        wrong.append(f"live regions are {live}: the text, the state and problems should be")
    return wrong


async def shoot(page: Browser, path: Path | None) -> None:
    """Save what the page looks like."""
    if path is not None:
        bottom = "document.querySelector('main').getBoundingClientRect().bottom"
        clip = {"x": 0, "y": 0, "width": 900, "height": await page.run(bottom), "scale": 1}
        image = await page.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        path.write_bytes(base64.b64decode(image["data"]))


async def hear(page: Browser, duration_s: float, cut: bool, screenshot: Path | None) -> str:
    """Let the page listen to its microphone, begun by the keyboard; return its words."""
    wrong = await go_by_keyboard(page)
    await press(page, "Enter")
    await page.until("state", "^live")
    await page.until("finals", "[a-z]")
    if cut:
        await page.run("document.getElementById('cut').click()")
        await page.until("state", "^lost")
        await page.until("state", "^live again")
        await asyncio.sleep(1.5)
    await shoot(page, screenshot)
    shown = f"{await page.text('finals')} {await page.text('tail')}".lower()
    if (words := shown.split())[: len(FIRST_WORDS)] != FIRST_WORDS[: len(words)]:
        raise RuntimeError(f"the page shows {shown!r} meanwhile")
    audio = float((await page.text("audio")).split()[0])
    await asyncio.sleep(max(0.0, duration_s + SILENCE_S - audio))
    print(f"  delay: {await page.text('delay')}; level {await page.text('level-text')}")
    await page.run("document.getElementById('microphone').click()")
    await page.until("state", "^finished")
    if wrong := wrong + await find_nameless(page):
        raise RuntimeError("; ".join(wrong))
    if cut and await page.text("resumed") == "0":
        raise RuntimeError("the connection was cut, but nothing was resumed")
    return await page.text("finals")


async def open_file(page: Browser, path: Path) -> str:
    """Open a recording in the page; return its words."""
    document = await page.call("DOM.getDocument")
    node = await page.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector="#file")
    await page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])
    await page.until("state", "^finished")
    return await page.text("finals")


async def speak(page: Browser, expected: str, screenshot: Path | None) -> list[str]:
    """Let the page speak; return what is wrong."""
    wrong = []
    await page.run(f"document.getElementById('say').value = '{SAID}'")
    await page.run("document.getElementById('say').focus()")
    while await page.run("document.activeElement.id") != "speak":
        await press(page, "Tab")
    await press(page, "Enter")
    await page.until("speech-state", "^speaking", 120)
    marked: list[str] = []
    shot = False
    async with asyncio.timeout(120):
        while await page.text("speech-state") == "speaking":
            now = await page.run("document.querySelector('#spoken .now')?.textContent ?? ''")
            if now and (not marked or marked[-1] != now):
                marked.append(now)
            if len(marked) == 3 and not shot:
                shot = True
                await shoot(page, screenshot)
            await asyncio.sleep(0.02)
    print(f"  spoken: {await page.text('spoken')}; marked: {' '.join(marked)}")
    if await page.text("speech-state") != "said":
        wrong.append(f"speech ended as {await page.text('speech-state')!r}")
    if (await page.text("spoken")).split() != SAID.split():
        wrong.append(f"{SAID!r} is shown as {await page.text('spoken')!r}")
    if len(marked) < 3 or any(word not in SAID.split() for word in marked):
        wrong.append(f"of {SAID!r}, {marked} stood out")
    # what was heard, and nothing more once it is stopped
    await page.run("document.getElementById('answer').click()")
    await page.until("speech-state", "^speaking", 120)
    await page.run("document.getElementById('speak').click()")
    await page.until("speech-state", "^stopped")
    shown = await page.text("spoken")
    await asyncio.sleep(1.0)
    if await page.text("spoken") != shown or not expected.startswith(shown):
        wrong.append(f"{shown!r} of what was heard goes on after the end")
    if await page.text("speak") != "Speak":
        wrong.append("the button doesn't say 'Speak' again")
    return wrong


async def prove(address: str, folder: Path, screenshot: Path | None) -> int:
    """Try everything; return how much is wrong."""
    samples, rate = soundfile.read(AUDIO, dtype="int16")
    soundfile.write(folder / "microphone.wav", samples, rate)
    expected = Transcriber.load(None, readable=True).transcribe(AUDIO).text
    print(f"transcribe: {expected}")
    wrong = 0
    for name in ("microphone", "microphone, cut", "file"):
        cut = name.endswith("cut")
        profile = folder / name.replace(", ", "-")
        async with open_page(f"http://{address}/", folder / "microphone.wav", profile) as page:
            if name == "file":
                text = await open_file(page, AUDIO)
            else:
                shown = screenshot if cut else None
                text = await hear(page, len(samples) / rate, cut, shown)
            if name == "file" and screenshot is not None:
                await shoot(page, screenshot.with_stem(f"{screenshot.stem}-file"))
            if name == "file" and not await page.run("document.getElementById('speaking').hidden"):
                shown = screenshot and screenshot.with_stem(f"{screenshot.stem}-speech")
                for problem in await speak(page, expected, shown):
                    wrong += 1
                    print(f"page: speech: {problem}")
            print(f"{name}: {text}")
            if text != expected:
                wrong += 1
                print(f"page: {name}: not the words of transcribe")
            if page.console:
                wrong += 1
                print(f"page: {name}: the console has {page.console}")
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Serve, look, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--screenshot", type=Path, metavar="PNG", help="save pictures of the page")
    parser.add_argument("--speaker", metavar="DIR", help="a generator (default: the shipped one)")
    args = parser.parse_args(argv)
    if shutil.which("chromium") is None:
        print("page: there is no 'chromium' on the path", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [
            *(sys.executable, "-m", "audiossm_apps.cli", "serve", "--port", "0"),
            *("--store", str(folder / "streams"), "--capacity", "4"),
            *("--speech-capacity", "2"),
            *(() if args.speaker is None else ("--speaker", args.speaker)),
        ]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().decode().split()[-1]
            wrong = asyncio.run(prove(address, folder, args.screenshot))
        finally:
            server.terminate()
            server.wait()
    print("page: ok" if not wrong else f"page: {wrong} things are wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
