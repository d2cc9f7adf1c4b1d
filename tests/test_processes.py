"""Processes do their work in order; one that is killed is told in one line, wherever it was."""

import json
import signal

import pytest

from audiossm.errors import WorkerError
from audiossm.manifest import read_manifest
from audiossm.processes import start_processes
from audiossm.train import corpus
from audiossm_apps.cli import main
from audiossm_apps.recipe import run_recipe
from dying import die
from tiny_model import SPEECH

RIVER = "The river was high after a week of rain, so we walked home over the old stone bridge."
TOLD = (
    "one of 2 processes ended early, killed by the system (out of memory?) or by a crash: "
    "choose fewer with --workers, or give them less at once"
)


def test_work_comes_back_in_its_order_and_ctrl_c_would_end_a_process_at_once():
    with start_processes(2, signal.signal, signal.SIGTERM, signal.SIG_IGN) as pool:
        assert list(pool.map(abs, range(-5, 0), chunksize=2)) == [5, 4, 3, 2, 1]
        asked = [signal.SIGINT, signal.SIGTERM]
        assert list(pool.map(signal.getsignal, asked)) == [signal.SIG_DFL, signal.SIG_IGN]


def test_a_killed_process_names_the_option_that_chose_it():
    with pytest.raises(WorkerError, match="choose fewer with --jobs"):
        with start_processes(1, option="--jobs") as pool:
            list(pool.map(die, range(9)))


def test_a_recipe_whose_decoding_process_is_killed_says_so_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(corpus, "decode", die)
    utterances = read_manifest(SPEECH / "manifest.jsonl")
    assert run_recipe(lambda: corpus.Corpus.load(utterances, (), (), workers=2)) == 1
    assert capsys.readouterr().err == f"audiossm: error: {TOLD}\n"


def test_prepare_says_so_too_and_can_be_started_again(tmp_path, monkeypatch, capsys):
    row = {"key": "river", "path": str(SPEECH / "river.flac"), "text": RIVER}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    out = tmp_path / "out"
    command = ["prepare", str(tmp_path / "one.jsonl"), "-o", str(out), "--no-phones", "--dev", "0"]
    with monkeypatch.context() as patch:
        patch.setattr("audiossm.prepare.folder.inspect", die)
        assert main([*command, "--workers", "2"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"audiossm: error: {TOLD}"
    assert not (out / "data.toml").exists()
    assert main([*command, "--workers", "1"]) == 0
    assert (out / "data.toml").exists()
