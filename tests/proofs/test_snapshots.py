"""The proof about snapshots, with a tiny model: it passes, and fails where it should."""

import importlib.util
from pathlib import Path

import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from tiny_model import SPEECH, make_transcriber

FILE = Path(__file__).parent / "snapshots.py"


@pytest.mark.parametrize(("limit", "code"), [("--max-ms=1000", 0), ("--max-mb=0.001", 1)])
def test_size_and_time_are_measured(limit, code, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("snapshots", FILE)
    proof = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(proof)
    model = make_transcriber()
    config = {"recogniser": to_dict(model.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, model.network.state_dict())
    argv = [str(SPEECH / "river.flac"), "--model", str(tmp_path / "tiny"), "--turns", "3"]
    if code:
        argv += ["--max-ms=1000"]
    assert proof.main([*argv, limit]) == code
    said = capsys.readouterr().out
    assert ("pass" if code == 0 else "FAIL") in said and "something else" not in said
