"""What a run keeps is whole, of the files that are there now, and of this run's network."""

import shutil

import pytest
import torch
from torch import nn

from audiossm.errors import ModelError, OutputError
from audiossm.manifest import Utterance
from audiossm.train import kept as kept_module
from audiossm.train.corpus import Corpus
from audiossm.train.kept import read_kept, write_kept
from audiossm.train.run import Run
from tiny_model import SPEECH


def test_whoever_is_killed_while_writing_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.pt"
    write_kept({"x": torch.ones(2)}, path)

    def die(tensors, fresh):
        fresh.write_bytes(b"half of i")
        raise KeyboardInterrupt

    monkeypatch.setattr(kept_module.torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        write_kept({"x": torch.zeros(2)}, path)
    assert read_kept(path)["x"].tolist() == [1, 1]


def test_a_full_disk_is_told_and_the_older_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "kept.pt"
    write_kept({"x": torch.ones(2)}, path)

    def fill(tensors, fresh):
        fresh.write_bytes(b"half of i")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    with monkeypatch.context() as full:
        full.setattr(kept_module.torch, "save", fill)
        with pytest.raises(OutputError, match="kept.pt: can't be written to its end: is the disk"):
            write_kept({"x": torch.zeros(2)}, path)
    assert read_kept(path)["x"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "junk", "empty", "list"])
def test_damaged_files_are_refused_in_one_line(damage, tmp_path):
    path = tmp_path / "kept.pt"
    write_kept({"x": torch.ones(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "junk": b"junk\n" * 9}.get(damage, b""))
    if damage == "list":
        torch.save([torch.ones(2)], path)
    with pytest.raises(ModelError, match="kept.pt: damaged, or not what a run kept: delete it"):
        read_kept(path)


def test_a_recording_that_was_repaired_is_heard(tmp_path):
    path, cache = tmp_path / "a.flac", tmp_path / "audio.pt"
    path.write_bytes(b"")
    utterances = [Utterance(key=key, text="t", path=path) for key in ("a",)]
    good = Utterance(key="b", text="t", path=SPEECH / "river.flac")
    first = Corpus.load([*utterances, good], (), (), cache=cache)
    assert len(first) == 1 and "is empty" in first.faults["a"]
    shutil.copy(SPEECH / "river.flac", path)
    assert len(Corpus.load([*utterances, good], (), (), cache=cache)) == 2


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    def begin(size: int) -> Run:
        network = nn.Linear(size, 2)
        return Run(network, network, lr=0.1, weight_decay=0.0, ema=0.9, betas=(0.9, 0.99))

    begin(3).save(tmp_path / "checkpoint.pt")
    assert begin(3).load(tmp_path / "checkpoint.pt") == {}
    with pytest.raises(ModelError, match="checkpoint.pt: of a network with other sizes"):
        begin(4).load(tmp_path / "checkpoint.pt")
    write_kept({"audio": torch.ones(2)}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="checkpoint.pt: of a network with other sizes"):
        begin(3).load(tmp_path / "checkpoint.pt")
