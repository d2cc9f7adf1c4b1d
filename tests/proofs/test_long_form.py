"""Errors of a joined text are found in the utterance that they are made in."""

import importlib.util
import sys
from pathlib import Path

import pytest

from audiossm.evaluate.wer import WordErrors

FOLDER = Path(__file__).parent


@pytest.fixture
def long_form(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # as for a script
    spec = importlib.util.spec_from_file_location("long_form", FOLDER / "long_form.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("recordings", None)


def test_each_text_gets_its_own_errors(long_form):
    texts = ["the cat sat".split(), "on a red mat".split(), "and slept deeply until noon".split()]
    found = "the dog sat on a mat and then slept deeply until noon".split()
    assert long_form.cut_errors(texts, found) == [
        WordErrors(1, 0, 0, 3),
        WordErrors(0, 1, 0, 4),
        WordErrors(0, 0, 1, 5),
    ]


def test_thirds_leave_nothing_out(long_form):
    assert long_form.split_thirds(200) == [(0, 67), (67, 133), (133, 200)]


def test_words_after_the_last_text_are_its_insertions(long_form):
    errors = long_form.cut_errors([["a"], ["b"]], ["a", "b", "c"])
    assert errors == [WordErrors(0, 0, 0, 1), WordErrors(0, 0, 1, 1)]
