"""The proof with clients, with a tiny model and those clients that need no package."""

import importlib.util
import sys
from pathlib import Path

import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from tiny_model import make_transcriber

FOLDER = Path(__file__).parent


@pytest.fixture
def clients(monkeypatch):
    spec = importlib.util.spec_from_file_location("clients", FOLDER / "clients.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "clients", module)
    spec.loader.exec_module(module)
    return module


def test_texts_are_those_of_transcribe_and_others_are_found(clients, tmp_path, monkeypatch, capsys):
    model = make_transcriber()
    config = {"recogniser": to_dict(model.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, model.network.state_dict())
    recordings = {"river": clients.read_recordings(0.1)["river"]}
    monkeypatch.setattr(clients, "read_recordings", lambda pause_s: recordings)
    kyutai = next(d for d in clients.DIALECTS if d.name == "kyutai")
    sherpa = next(d for d in clients.DIALECTS if d.name == "sherpa")
    native = next(d for d in clients.DIALECTS if d.name == "native")
    monkeypatch.setattr(clients, "DIALECTS", [native, sherpa, kyutai])
    argv = ["--model", str(tmp_path / "tiny")]
    assert clients.main(argv) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.count("1 of 1 equal") == 3
    deaf = clients.Dialect("deaf", "f32", 16000, lambda address, data, rate: "nothing")
    monkeypatch.setattr(clients, "DIALECTS", [deaf])
    assert clients.main(argv) == 1
    assert "0 of 1 equal" in capsys.readouterr().out
