"""The recipe of the recogniser runs, learns, resumes exactly, and leaves a model that works."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from audiossm.errors import ManifestError
from audiossm.streaming import Transcriber
from audiossm.train.corpus import Corpus
from recipe_run import StepClock, load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "transcribe" / "train.py"
MODEL_FILES = {"config.toml", "model.safetensors"}


@pytest.fixture
def recipe() -> ModuleType:
    return load_recipe("transcribe")


def test_the_smoke_run_learns_and_exports_a_model_that_transcribes(tmp_path):
    command = [sys.executable, RECIPE, "--smoke", "--out", tmp_path, "--workers", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "step 30 of 30, dev WER " in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30]
    losses = [row["ctc"] for row in rows]
    assert losses[-1] < 0.75 * losses[0]
    model = Transcriber.load(tmp_path / "model")
    assert model.name == "model"
    transcript = model.transcribe(ROOT / "tests" / "speech" / "river.flac")
    assert transcript.duration_s == pytest.approx(5.035, abs=0.01)
    assert transcript.text == " ".join(word.word for word in transcript.words)


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path, monkeypatch, recipe):
    small = {"steps": 6, "consistency_from": 2}
    monkeypatch.setattr(recipe, "SMOKE_TRAIN", recipe.SMOKE_TRAIN | small)

    def train(name: str, *options: str) -> None:
        out = str(tmp_path / name)
        command = ["train.py", "--smoke", "--device", "cpu", "--workers", "1", "--out", out]
        monkeypatch.setattr(sys, "argv", [*command, *options])
        torch.manual_seed(random.randrange(1000))  # what was before the run must not matter
        recipe.main()

    train("straight")
    with monkeypatch.context() as patch:
        StepClock(recipe, patch, steps=3)
        train("stopped", "--minutes", "5")
    early = (tmp_path / "stopped" / "model" / "model.safetensors").read_bytes()
    saved = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3
    train("stopped")
    for name in MODEL_FILES:
        straight = (tmp_path / "straight" / "model" / name).read_bytes()
        assert (tmp_path / "stopped" / "model" / name).read_bytes() == straight, name
        assert early != straight


def make_corpus(sizes: list[int], sources: list[str]) -> Corpus:
    count = len(sizes)
    lengths = np.array(sizes)
    return Corpus(
        audio=torch.arange(sum(sizes), dtype=torch.int16),
        starts=np.cumsum(lengths) - lengths,
        sizes=lengths,
        labels=([[i] for i in range(count)],),
        joints=([],),
        texts=[""] * count,
        sources=sources,
    )


def test_batches_go_on_from_any_place(recipe):
    corpus = make_corpus([30, 20, 50, 40, 45, 25, 35], [""] * 7)
    data = {"row_s": 100 / 16000, "rows": 1, "synthetic_share": 0.0}
    hp = {"seed": 7, "consistency_weight": 0.0, "consistency_from": 0}
    source = recipe.batches([corpus, corpus], data, hp, 0)
    straight = [next(source) for _ in range(12)]
    for first in (1, 5, 11):
        batch = next(recipe.batches([corpus, corpus], data, hp, first))
        assert torch.equal(batch.audio, straight[first].audio)
        assert batch.labels == straight[first].labels
    seen = [item for batch in straight for item in batch.labels[0][0]]
    assert sorted(seen[:14]) == sorted([*range(7), *range(7)])  # a pass: each item at each speed


def test_two_views_halve_the_rows_of_a_batch_and_lose_none(recipe):
    corpus = make_corpus([60] * 8, [""] * 8)
    data = {"row_s": 100 / 16000, "rows": 4, "synthetic_share": 0.0}
    hp = {"seed": 1, "consistency_weight": 0.2, "consistency_from": 1}
    source = recipe.batches([corpus], data, hp, 0)
    batches = [next(source) for _ in range(3)]
    assert [len(batch.audio) for batch in batches] == [4, 2, 2]
    assert sorted(row[0] for batch in batches for row in batch.labels[0]) == [*range(8)]
    again = next(recipe.batches([corpus], data, hp, 2))
    assert again.labels == batches[2].labels


def test_a_pass_has_all_real_speech_and_a_share_of_synthetic_speech(recipe):
    corpus = make_corpus([100] * 40, ["ljspeech"] * 10 + ["synthetic/flite"] * 30)
    rng = random.Random(0)
    passes = [recipe.choose(corpus, {"synthetic_share": 0.2}, rng) for _ in range(2)]
    for chosen in passes:
        assert chosen[:10] == [*range(10)]
        assert len(set(chosen)) == len(chosen) == 12  # 2 of 12: not more than a fifth
    assert passes[0] != passes[1]


def test_too_little_speech_for_a_batch_is_refused(recipe):
    corpus = make_corpus([50], [""])
    data = {"row_s": 100 / 16000, "rows": 2, "synthetic_share": 0.0}
    hp = {"seed": 0, "consistency_weight": 0.0, "consistency_from": 0}
    with pytest.raises(ManifestError, match="not enough speech for a batch of 2 rows"):
        next(recipe.batches([corpus], data, hp, 0))
