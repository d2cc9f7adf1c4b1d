"""The recipe of the text model learns, and what it leaves scores words."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from audiossm.train.text_model import TextModel
from recipe_run import load_recipe

TEXT = Path(__file__).parents[1] / "text" / "sentences.txt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    plain = folder / "plain.txt"
    rows = TEXT.read_text().splitlines()
    letters = [
        "".join(c for c in row.lower() if c in "abcdefghijklmnopqrstuvwxyz '") for row in rows
    ]
    plain.write_text("".join(" ".join(row.replace("'", "").split()) + "\n" for row in letters))
    recipe = load_recipe("lm", "train")
    command = ["train.py", str(plain), "--smoke", "--out", str(folder), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        recipe.main()
    return folder


def test_the_smoke_run_learns(trained):
    *rows, last = map(json.loads, (trained / "log.jsonl").read_text().splitlines())
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert 1 < last["perplexity"] < 128**2.6  # a word has 2.8 pieces of 128


def test_a_words_scores_are_its_pieces_and_do_not_depend_on_the_batch(trained):
    model = TextModel.load(trained / "model")
    lines = ["the dog", "a man was in the house and there he was", "the"]
    together = model.score(lines)
    for line, scores in zip(lines, together, strict=True):
        assert len(scores) == len(line.split()) + 1
        assert scores == pytest.approx(model.score([line])[0], abs=1e-4)
    ids = torch.tensor(model.pieces.encode(["the dog"]).astype("int64"))
    logs = model.network(ids[None, :-1]).log_softmax(-1)[0]
    whole = sum(logs[at, ids[at + 1]].item() for at in range(len(ids) - 1))
    assert sum(together[0]) == pytest.approx(whole, abs=1e-3)
    first = model.network(torch.zeros(1, 1, dtype=torch.int64)).softmax(-1)[0, 0]
    assert math.isclose(first.sum().item(), 1.0, rel_tol=1e-4)
