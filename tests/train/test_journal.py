"""A run's log has each step once, however often the run was killed."""

import json
import sys

import pytest
import torch

from audiossm.errors import DependencyError
from audiossm.train.journal import Journal, Means, append_row, read_rows


def read_steps(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_rows_beyond_the_checkpoint_go_and_come_again(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (10, 20, 30):
        journal.write({"step": step, "ctc": 1 / step})
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 40, "ct')  # killed while it wrote
    journal = Journal(tmp_path, 20)
    assert read_steps(tmp_path) == [10, 20]
    journal.write({"step": 30, "ctc": 0.5})
    assert read_steps(tmp_path) == [10, 20, 30]


def test_rows_survive_a_line_that_was_broken_off_anywhere(tmp_path):
    path, rows = tmp_path / "rows.jsonl", [{"seed": 0}, {"seed": 1, "said": "naïve"}, {"seed": 2}]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    whole = path.read_bytes()
    assert whole.count(b"\n") == 3
    begun = whole.rindex(b"{")
    for end in range(begun, len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = rows if end >= len(whole) - 1 else rows[:2]  # whole but for its line's end is whole
        assert read_rows(path) == kept
        append_row(path, {"seed": 3})
        assert read_rows(path) == [*kept, {"seed": 3}]
    path.write_bytes(whole[:begun] + b'{"se' + whole[begun:])  # what older versions made of it
    assert read_rows(path) == rows[:2]


def test_tensorboard_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"pip install 'audiossm\[train\]'"):
        Journal(tmp_path, 0, tensorboard=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's own
def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    journal = Journal(tmp_path, 0, tensorboard=True)
    journal.write({"step": 10, "minutes": 0.1, "ctc": 0.25})
    journal.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"ctc" in events.read_bytes() and b"minutes" not in events.read_bytes()


def test_a_mean_is_of_the_steps_since_the_last_one():
    means = Means()
    means.add({"ctc": torch.tensor(1.0, requires_grad=True)})
    means.add({"ctc": torch.tensor(2.0), "consistency": torch.tensor(5.0)})
    assert {name: mean.item() for name, mean in means.take().items()} == {
        "ctc": 1.5,
        "consistency": 5.0,
    }
    means.add({"ctc": torch.tensor(7.0)})
    assert {name: mean.item() for name, mean in means.take().items()} == {"ctc": 7.0}
