"""What README shows at the command line runs: by the shipped models, on short recordings."""

import io
import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from audiossm.models import Recogniser, RecogniserConfig, save_recogniser
from audiossm_apps.cli import main
from page_commands import list_commands
from page_server import serving
from tiny_model import SPEECH

ROOT = Path(__file__).parent.parent
COMMANDS = [c for c in list_commands(ROOT / "README.md") if c.words[0] == "audiossm"]
# what makes a command short enough for a test, or ends it
SHORT = {
    "transcribe recording.wav": ["--follow-timeout", "0.3"],
    "serve": "--port 0 --capacity 1 --speech-capacity 1 --store kept".split(),
    "loadtest": "--streams 1 --seconds 2 --max-p99-ms 60000".split(),
    "soak": ["--minutes", "0.05"],
    "prepare": ["--workers", "1"],
    "evaluate parity": ["--limit", "1"],
    "evaluate confidence": ["--limit", "3"],
    "evaluate codec": ["--limit", "1", "--jobs", "1", "--metrics", "stoi"],
    "evaluate speech": ["--limit", "1", "--measures", "words"],
}
FED = {"transcribe -": "talk.wav", "transcribe - --raw-rate 16000": "samples.s16le"}
ELSEWHERE = {  # what needs a device runs with one that is made up
    "mic": "tests/apps/test_mic_cli.py",
    "generate --play": "tests/apps/test_generate_cli.py",
}
# they end with 1 where a limit doesn't hold, as on so few recordings or on a busy machine
JUDGING = ("loadtest", "soak", "evaluate codec", "evaluate speech", "evaluate parity")
MADE = (
    "talk.srt out/talk.srt talks/talk.txt film.vtt kettle.wav more.wav talk.ssma "
    "prepared/train.jsonl mine/model.safetensors cache/audiossm/graphs mine.jsonl quality.png"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that README's commands name."""
    place = tmp_path_factory.mktemp("readme")
    speech, rate = soundfile.read(SPEECH / "river.flac", dtype="float32")
    for name in ("tests", "recipes", "assets"):
        (place / name).symlink_to(ROOT / name, target_is_directory=True)
    for name in ("talks", "recordings"):
        (place / name).mkdir()
    for name in ("talk.mp3", "talks/talk.mp3", "talk.wav", "recording.wav", "a.flac", "b.flac"):
        soundfile.write(place / name, speech, rate)
    soundfile.write(place / "call.wav", np.stack([speech, speech[::-1]], 1), rate)
    samples = (speech * 32767).astype("<i2")
    (place / "samples.s16le").write_bytes(samples.tobytes())
    with av.open(str(place / "film.mp4"), "w") as film:
        stream = film.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            film.mux(packet)
    rows = [json.loads(r) for r in (SPEECH / "manifest.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if row["key"] == "river")
    (place / "talk.txt").write_text(row["text"])
    (place / "story.txt").write_text("The kettle is on.")
    (place / "names.txt").write_text("Anna Karenina\n")
    (place / "talks.jsonl").write_text(json.dumps(row | {"path": "a.flac"}))
    lists = [["key", "librispeech_id", "rare_words", "phrases_100"]]
    lists.append(["river", "-", '["river"]', '["river", "kettle"]'])
    (place / "lists.tsv").write_text("".join("\t".join(line) + "\n" for line in lists))
    for item in rows:
        shutil.copy(SPEECH / item["path"], place / "recordings")
        name = Path(item["path"]).with_suffix(".txt").name
        (place / "recordings" / name).write_text(item["text"])
    save_recogniser(place / "my-model", "", Recogniser(RecogniserConfig.tiny()))
    with np.load(ROOT / "tests" / "golden" / "lm_siso.npz") as file:
        tensors = {
            key.removeprefix("param."): file[key] for key in file.files if key.startswith("param.")
        }
        config = str(file["config"])
    theirs = place / "mamba3-folder"
    theirs.mkdir()
    (theirs / "config.json").write_text(config)
    kept = {k: torch.from_numpy(v) for k, v in tensors.items() if k != "lm_head.weight"}
    save_file(kept, theirs / "model.safetensors")
    return place


def test_what_readme_shows_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    address, ran = "", []
    with ExitStack() as servers:
        for command in COMMANDS:
            words = [word.replace("127.0.0.1:8765", address) for word in command.words[1:]]
            said = " ".join(words)
            if any(said.startswith(name) for name in ELSEWHERE):
                continue
            if said.startswith("codec encode"):  # of which the next one takes the second minute
                minute = np.zeros(16000 * 66, np.float32)
                soundfile.write("talk.mp3", minute, 16000)
            for name, more in SHORT.items():
                words += more if said.startswith(name) else []
            if words[0] == "serve":
                address = servers.enter_context(serving(words, monkeypatch))
                continue
            with open(FED.get(said, "talk.wav"), "rb") as file:
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
                code = main(words)
            assert code == 0 or said.startswith(JUDGING) and code == 1, (said, capsys.readouterr())
            ran.append(said)
    assert len(ran) == len(COMMANDS) - 4
    assert [name for name in MADE if not Path(name).exists()] == []
    out = capsys.readouterr().out
    assert out.count("The river was high") > 5
