"""The proof of a card's streams runs on a CPU, too, with a small model; what it says is counted."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tiny_model import make_transcriber, read_speech


@pytest.fixture
def proof(monkeypatch) -> ModuleType:
    path = Path(__file__).with_name("card_streams.py")
    spec = importlib.util.spec_from_file_location("card_streams", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "make_model", lambda args: make_transcriber())
    monkeypatch.setattr(module, "LEAD_S", 0.2)
    return module


@pytest.fixture
def options(tmp_path) -> list[str]:
    np.save(tmp_path / "speech.npy", read_speech()[:32000])
    return [
        *("--device", "cpu", "--check", "0", "--seconds", "0.4"),
        *("--audio", str(tmp_path / "speech.npy"), "--json", str(tmp_path / "report.json")),
    ]


def test_streams_are_fed_in_time_and_counted(proof, options, tmp_path, capsys):
    code = proof.main([*options, "--streams", "6", "3", "--groups", "3"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["streams"] for row in report["rows"]] == [6, 3]
    assert code == int(not all(row["holds"] for row in report["rows"]))
    for row in report["rows"]:
        assert not row["holds"] or row["p99_ms"] < row["frame_ms"]
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert "slots-float32-cpu" in capsys.readouterr().out


def test_an_engine_with_seats_is_fed_in_time(proof, options, tmp_path):
    proof.main([*options, "--engine", "3"])
    (row,) = json.loads((tmp_path / "report.json").read_text())["engines"]
    assert row["streams"] == 3 and 1 <= row["rows"] <= 3
    assert row["holds"] == (row["p99_ms"] < 80)
