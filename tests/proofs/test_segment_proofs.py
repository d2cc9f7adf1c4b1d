"""The proofs of endpoints and of invention count what there is, and can fail."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm import Endpoint, EndpointRules, Transcriber
from audiossm.streaming import Word

RATE = 16000


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


endpoints, invention = load("endpoints"), load("invention")


class Ears:
    """A session that hears where loud samples begin and end."""

    def __init__(self, shift_s: float, num_words: int = 0) -> None:
        self.shift_s, self.num_words, self.pieces = shift_s, num_words, []

    def push(self, samples):
        self.pieces.append(samples)
        return [Word("and", 0.0, 1.0, 0.5)] * (self.num_words if len(self.pieces) == 1 else 0)

    def finish(self):
        loud = np.flatnonzero(np.abs(np.concatenate(self.pieces)) > 0.1)
        gaps = loud[:-1][np.diff(loud) > RATE // 2] / RATE
        times = [float(at) + 0.4 + self.shift_s for at in gaps]
        return [Endpoint("pause", at, 0.0, at) for at in times] + [Endpoint("end", 1e9, 0.0, 1e9)]


@pytest.fixture
def manifest(tmp_path):
    lines = []
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(RATE, 0.5), RATE)
        lines.append(json.dumps({"key": str(number), "path": f"{number}.wav", "text": "a b"}))
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(main, monkeypatch, capsys, session, *options):
    words = [SimpleNamespace(start_s=at, end_s=at + 0.5) for at in (0.0, 0.5)]
    model = SimpleNamespace(
        name="fake",
        session=lambda *args, **rules: session(),
        align=lambda *args, **options: SimpleNamespace(words=words),
    )
    monkeypatch.setattr(Transcriber, "load", lambda *args, **options: model)
    monkeypatch.setattr(sys, "argv", ["proof", *map(str, options), "--json"])
    code = main()
    return code, json.loads(capsys.readouterr().out)


def test_cuts_in_gaps_pass_and_cuts_in_words_fail(manifest, monkeypatch, capsys):
    options = (manifest, "--gaps", "7")
    code, report = run(endpoints.main, monkeypatch, capsys, lambda: Ears(0.0), *options)
    assert (code, report["found"], report["cuts"]) == (0, 7, {"pause": 7})
    assert report["inside_share"] == 0 and report["rules"] == vars(EndpointRules())
    code, report = run(endpoints.main, monkeypatch, capsys, lambda: Ears(-0.6), *options)
    assert (code, report["found"], report["inside_words"]) == (1, 0, {"pause": 7})


@pytest.mark.parametrize(
    ("kind", "words", "code"), [("silence", 0, 0), ("silence", 1, 1), ("hum", 1, 0), ("hum", 2, 1)]
)
def test_words_in_an_hour_are_counted(monkeypatch, capsys, kind, words, code):
    options = ("--minutes", "3.1", "--only", kind)
    found = run(invention.main, monkeypatch, capsys, lambda: Ears(0.0, words), *options)
    assert found[0] == code and found[1][kind]["words"] == words


def test_a_looped_sound_goes_on(manifest):
    blocks = invention.loop_sounds(manifest)
    assert [len(next(blocks)) for _ in range(5)] == [RATE] * 5
    hum = next(invention.make_hum())
    assert 10 ** (-52 / 20) < np.sqrt(np.mean(hum**2)) < 10 ** (-47 / 20)
