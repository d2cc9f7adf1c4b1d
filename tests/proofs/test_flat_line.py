"""The proof of the flat line measures both kinds of layers, and draws what it has measured."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture
def flat_line(monkeypatch):
    spec = importlib.util.spec_from_file_location("flat_line", FOLDER / "flat_line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stream_stays_as_small_as_it_was_and_a_cache_grows(flat_line, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    command = ["flat_line.py", "--device", "cpu", "--lengths", "40", "80", "--seconds", "0.01"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(tmp_path / "found.json")])
    flat_line.main()  # what it returns hangs on how busy this machine is
    found = json.loads((tmp_path / "found.json").read_text())
    sizes = found["parameters"].values()
    assert max(sizes) < 1.01 * min(sizes)
    first, second = found["rows"]
    assert [first["frames"], second["frames"]] == [40, 80]
    assert first["mamba_bytes"] == second["mamba_bytes"]
    assert second["attention_bytes"] == 4 * second["grouped_bytes"] > 1.9 * first["attention_bytes"]
    assert all(row[f"{way}_ms"] > 0 for row in found["rows"] for way in found["parameters"])
    monkeypatch.setattr(
        sys,
        "argv",
        ["flat_line.py", "--draw", str(tmp_path / "found.json")]
        + ["--picture", str(tmp_path / "flat.png")],
    )
    assert flat_line.main() == 0
    assert (tmp_path / "flat.png").read_bytes().startswith(b"\x89PNG")
