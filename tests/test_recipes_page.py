"""What docs/recipes.md says works: its commands run, one after the other, on a toy folder."""

import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audiossm.checkpoint import ModelFolder
from audiossm.errors import ConfigError
from audiossm.lexicon import PHONES
from audiossm.models import LoadedRecogniser, Recogniser, RecogniserConfig, save_recogniser
from audiossm_apps.cli import main, make_parser
from recipe_run import load_recipe
from tiny_model import SPEECH

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
# what makes the commands short enough for a test
TOY = {
    "prepare": ["--workers", "1", "--dev", "0.3"],
    "evaluate": ["--limit", "1", "--decoder", "greedy"],
    "transcribe": ["--decoder", "greedy", "--raw"],
    "train.py": "--workers 1 --device cpu --set train.steps=1 --set train.log_every=1".split(),
    "fine_tune": "--set data.rows=1 --set data.speeds=[1.0] --set recogniser.dropout=0.3".split(),
    "recipes/generate/train.py": ["--set", "data.dev_share=0.5"],
}


def list_commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(part) for line in lines for part in line.split("&&")]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recordings, the recipes' configs, and a tiny model that tells phones."""
    for line in (SPEECH / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        place = tmp_path / "recordings" / row["speaker"].replace(":", "-")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(SPEECH / row["path"], place)
        (place / f"{row['key']}.txt").write_text(row["text"])
    shutil.copytree(ROOT / "recipes" / "transcribe", tmp_path / "recipes" / "transcribe")
    network = Recogniser(replace(RecogniserConfig.tiny(), phones=PHONES))
    save_recogniser(tmp_path / "first-light", "", network)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(toy, monkeypatch, capsys):
    ran = []
    for words in list_commands():
        words = ["./first-light" if word == "first-light" else word for word in words]
        if words[0] == "audiossm" and words[1] == "serve":
            args = make_parser().parse_args(words[1:])
            assert LoadedRecogniser.load(args.model).config.phones == PHONES
        elif words[0] == "audiossm":
            assert main(words[1:] + TOY[words[1]]) == 0, capsys.readouterr().err
        elif words[0] == "python" and words[1].startswith("recipes/"):
            more = TOY["train.py"] + TOY.get(words[1], [])
            more += TOY["fine_tune"] if "--init" in words else []
            monkeypatch.setattr(sys, "argv", [*words[1:], *more])
            load_recipe(words[1].split("/")[1]).main()
        else:
            continue
        ran.append(words[1])
    assert len(ran) == 9 and ran[0] == "prepare"
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


def test_fine_tuning_without_the_phones_of_its_model_is_refused(toy, monkeypatch):
    """Otherwise the model would lose its head of phones without a word."""
    assert main(["prepare", "recordings", "-o", "prepared", "--workers", "1", "--no-phones"]) == 0
    (command,) = (words for words in list_commands() if "--init" in words)
    words = ["./first-light" if word == "first-light" else word for word in command[1:]]
    monkeypatch.setattr(sys, "argv", [*words, *TOY["train.py"]])
    with pytest.raises(ConfigError, match="lacks the phones that model './first-light' tells"):
        load_recipe("transcribe").main()
