"""What docs/recipes.md says works: its commands run, one after the other, on a toy folder."""

import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from audiossm.checkpoint import ModelFolder
from audiossm.errors import ConfigError
from audiossm.lexicon import PHONES
from audiossm.models import LoadedRecogniser, Recogniser, RecogniserConfig, save_recogniser
from audiossm_apps.cli import main
from page_commands import list_commands
from page_server import serving
from recipe_run import load_recipe
from tiny_model import SPEECH

ROOT = Path(__file__).parent.parent
COMMANDS = [list(command.words) for command in list_commands(ROOT / "docs" / "recipes.md")]
# what makes the commands short enough for a test
TOY = {
    "prepare": ["--workers", "1", "--dev", "0.3"],
    "evaluate transcribe": ["--limit", "1", "--decoder", "greedy"],
    "evaluate codec": ["--limit", "1", "--jobs", "1", "--metrics", "mel"],
    "transcribe": ["--decoder", "greedy", "--raw"],
    "serve": "--port 0 --capacity 1 --speech-capacity 1 --decoder greedy --store kept".split(),
    "train.py": "--workers 1 --device cpu --set train.steps=1 --set train.log_every=1".split(),
    "fine_tune": "--set data.rows=1 --set data.speeds=[1.0] --set recogniser.dropout=0.3".split(),
    "recipes/generate/train.py": ["--set", "data.dev_share=0.5"],
}
SOUNDS = ("talk.flac", "talk-again.wav", "kettle.wav", "more.wav", "served.wav")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recordings, the recipes' configs, and a tiny model that tells phones."""
    for line in (SPEECH / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        place = tmp_path / "recordings" / row["speaker"].replace(":", "-")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(SPEECH / row["path"], place)
        (place / f"{row['key']}.txt").write_text(row["text"])
    shutil.copy(SPEECH / "river.flac", tmp_path / "talk.flac")
    shutil.copytree(ROOT / "recipes" / "transcribe", tmp_path / "recipes" / "transcribe")
    network = Recogniser(replace(RecogniserConfig.tiny(), phones=PHONES))
    save_recogniser(tmp_path / "first-light", "", network)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(toy, monkeypatch, capsys):
    ran, address = [], ""
    with ExitStack() as servers:
        for words in COMMANDS:
            words = ["./first-light" if word == "first-light" else word for word in words]
            words = [word.replace("127.0.0.1:8765", address) for word in words]
            if words[0] == "audiossm":
                name = " ".join(words[1:3]) if words[1] == "evaluate" else words[1]
                words = words[1:] + TOY.get(name, [])
                if name == "serve":
                    servers.close()  # the one before
                    address = servers.enter_context(serving(words, monkeypatch))
                else:
                    assert main(words) == 0, capsys.readouterr().err
            elif words[0] == "python" and words[1].startswith("recipes/"):
                name = words[1]
                more = TOY["train.py"] + TOY.get(name, [])
                more += TOY["fine_tune"] if "--init" in words else []
                monkeypatch.setattr(sys, "argv", [*words[1:], *more])
                load_recipe(name.split("/")[1]).main()
            else:
                continue
            ran.append(name)
    assert len(ran) == 17 and ran[0] == "prepare"
    begun, mine = (ModelFolder.open(toy / name) for name in ("first-light", "runs/mine/model"))
    assert mine.config["recogniser"] == begun.config["recogniser"] | {"dropout": 0.3}
    old, new = (LoadedRecogniser.load(f.path).network.state_dict() for f in (begun, mine))
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert any(name.startswith("phones.") for name in moved)
    for run in ("mine", "try-recogniser", "try-codec", "try-generator"):
        assert (toy / "runs" / run / "log.jsonl").exists(), run
    cards = sorted(str(path.parent.relative_to(toy)) for path in toy.glob("runs/*/*/README.md"))
    assert cards == [
        "runs/mine/model",
        "runs/try-codec/codec",
        "runs/try-generator/model",
        "runs/try-recogniser/model",
    ]
    assert len(list((toy / "texts").rglob("*.txt"))) == 10
    seconds = {name: soundfile.info(toy / name).duration for name in SOUNDS}
    assert seconds["talk-again.wav"] == seconds["talk.flac"]
    assert min(seconds.values()) > 0.1, seconds


def test_fine_tuning_without_the_phones_of_its_model_is_refused(toy, monkeypatch):
    """Otherwise the model would lose its head of phones without a word."""
    assert main(["prepare", "recordings", "-o", "prepared", "--workers", "1", "--no-phones"]) == 0
    (command,) = (words for words in COMMANDS if "--init" in words)
    words = ["./first-light" if word == "first-light" else word for word in command[1:]]
    monkeypatch.setattr(sys, "argv", [*words, *TOY["train.py"]])
    with pytest.raises(ConfigError, match="lacks the phones that model './first-light' tells"):
        load_recipe("transcribe").main()
