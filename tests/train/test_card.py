"""A run's card and curves say what the run knows."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from audiossm.train.card import write_card
from audiossm.train.corpus import Corpus
from audiossm.train.curves import draw_curves

ROWS = [
    {"step": 10, "minutes": 0.5, "norm": 2.0, "ctc": 1.5},
    {"step": 20, "minutes": 1.0, "norm": 1.0, "ctc": 1.25, "dev_wer": 0.625},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_a_card_tells_hours_by_source_and_the_last_numbers(run):
    sizes = np.array([16000 * 3600, 16000 * 1800, 16000 * 1800])
    corpus = Corpus(torch.zeros(0), sizes * 0, sizes, (), (), [""] * 3, ["b", "a", "b"])
    (run / "toy").mkdir()
    network = nn.Linear(999, 1000)
    device = torch.device("cpu")
    write_card(run / "toy", "audiossm evaluate", network, corpus, run / "log.jsonl", device)
    card = (run / "toy" / "README.md").read_text()
    assert card.startswith("# toy\n\n1.0 M parameters. Trained to step 20 on ")
    assert "Trained on 2.00 hours:" in card
    assert "| a | 0.50 |\n| b | 1.50 |" in card
    assert "| ctc | 1.25 |" in card and "| dev_wer | 0.625 |" in card
    assert "Not evaluated yet: `audiossm evaluate`" in card


def test_curves_are_a_picture(run):
    pytest.importorskip("matplotlib")
    assert draw_curves([run, run], run / "curves.png")
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not draw_curves([run], run / "curves.png")
    assert not (run / "curves.png").exists()
