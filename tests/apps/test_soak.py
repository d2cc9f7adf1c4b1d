"""A long session stays as it was; the soak says so, and says when it isn't so."""

import json
import time
from mmap import mmap

import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.streaming import stream
from audiossm_apps.cli import main
from audiossm_apps.soak import Window, judge
from tiny_model import SPEECH, make_transcriber


@pytest.fixture
def tiny(tmp_path) -> str:
    model = make_transcriber()
    config = {"recogniser": to_dict(model.config)}
    save_model(tmp_path / "tiny", "recogniser", "", config, model.network.state_dict())
    return str(tmp_path / "tiny")


def run(tiny: str, minutes: str, *more: str) -> int:
    # a step of so small a network is so short that its time says little
    argv = ["soak", str(SPEECH / "river.flac"), "--minutes", minutes, "--model", tiny]
    return main([*argv, "--max-step", "30", *more])


def test_two_minutes_are_flat(tiny, tmp_path, capsys):
    assert run(tiny, "2", "--json", str(tmp_path / "soak.json")) == 0, capsys.readouterr()
    lines = capsys.readouterr().out.splitlines()
    assert "0:02:00 of audio" in lines[0]
    assert [line.split(":")[0] for line in lines[1:5]] == ["flat"] * 4
    assert "pass: 2 minutes" in lines[-1]
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["passed"] and len(report["windows"]) == 8
    assert report["windows"][-1]["audio_s"] == 120
    assert all(window["words_a_minute"] > 0 for window in report["windows"])


def test_a_session_that_keeps_what_it_heard_is_found_out(tiny, capsys, monkeypatch):
    class Hoarder(stream.Stream):
        hoard: list[mmap] = []

        def push(self, samples):
            # not from the heap, where tests before this one may have left room
            self.hoard.append(mmap(-1, 800_000))
            self.hoard[-1].write(b"x" * 800_000)
            return super().push(samples)

    monkeypatch.setattr(stream, "Stream", Hoarder)
    assert run(tiny, "0.2") == 1
    said = capsys.readouterr()
    assert "NOT FLAT: memory" in said.out and "FAIL" in said.err


def test_a_session_whose_steps_take_ever_longer_is_found_out(tiny, capsys, monkeypatch):
    class Dawdler(stream.Stream):
        def push(self, samples):
            news, until = super().push(samples), time.thread_time() + self.received / 16000 / 1000
            while time.thread_time() < until:
                pass
            return news

    monkeypatch.setattr(stream, "Stream", Dawdler)
    assert run(tiny, "0.2") == 1
    assert "NOT FLAT: step" in capsys.readouterr().out


def test_a_session_that_falls_silent_is_found_out():
    talking = [Window(60.0 * i, 1, 1, 1.0, 1.0, 150.0) for i in range(1, 7)]
    silent = [Window(60.0 * i, 1, 1, 1.0, 1.0, 0.0) for i in range(7, 12)]
    assert all(change.is_flat for change in judge(talking, 0.01, 0.05))
    flat = {change.name: change.is_flat for change in judge(talking + silent, 0.01, 0.05)}
    assert not flat.pop("words a minute") and all(flat.values())
