"""Recall of rare words and false alarms are counted where the alignment has them."""

import json
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiossm.errors import HotwordError, ManifestError
from audiossm.evaluate.hotwords import HotwordList, evaluate_hotwords, find_phrases, read_lists
from audiossm.manifest import read_manifest
from audiossm.streaming import Transcriber, Word
from audiossm_apps.cli import main


class FakeSession:
    """Says a text at the end."""

    def __init__(self, text: str) -> None:
        self.text = text

    def push(self, samples: np.ndarray) -> list[Word]:
        return []

    flush = None

    def finish(self) -> list[Word]:
        return [Word(word, 0.0, 1.0, 1.0) for word in self.text.split()]


def make_fake(without: str, with_words: str) -> SimpleNamespace:
    """A transcriber that writes one text without hot words and another with any."""

    def session(
        sample_rate: int, lookahead_ms: int = 320, hotwords: Sequence[str] = ()
    ) -> FakeSession:
        return FakeSession(with_words if hotwords else without)

    return SimpleNamespace(
        name="fake", hash="abc", device=SimpleNamespace(type="cpu"), session=session
    )


@pytest.fixture
def manifest(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000 * 6, np.float32), 8000)
    line = {"key": "a", "path": "a.wav", "text": "The ARDOUR of chaos, of new york."}
    (tmp_path / "set.jsonl").write_text(json.dumps(line))
    return tmp_path / "set.jsonl"


SAID = "ardour", "chaos", "new york"
LISTS = {"a": HotwordList(SAID, (*SAID, "beano"))}


def evaluate(manifest, without, with_words):
    fake = make_fake(without, with_words)
    return evaluate_hotwords(fake, read_manifest(manifest), LISTS)


def test_rare_words_are_found_in_their_places(manifest):
    found = evaluate(manifest, "the order of chaos of new work", "the ardour of chaos of new york")
    assert (found.without.said, found.without.found) == (3, 1)
    assert (found.with_lists.said, found.with_lists.found) == (3, 3)
    assert (found.without.recall, found.with_lists.recall, found.misses_left) == (1 / 3, 1.0, 0.0)
    assert found.without.false_alarms == found.with_lists.false_alarms == ()
    assert found.without.evaluation.total.errors.rate == 2 / 7


def test_a_phrase_where_it_was_not_said_is_a_false_alarm(manifest):
    found = evaluate(manifest, "the order of", "chaos the ardour of beano of new york")
    # chaos is written, but in another place
    alarms = [phrase for _, phrase in found.with_lists.false_alarms]
    assert alarms == ["chaos", "beano"]
    assert (found.with_lists.found, found.without.false_alarms) == (2, ())
    assert found.with_lists.alarms_per_10_min == 2 * 600 / 6
    assert found.misses_left == 1 / 3


def test_phrases_may_share_words():
    found = find_phrases("a New York state", ["new york", "york", "york state", "state of"])
    assert found == [("new york", range(1, 3)), ("york", range(2, 3)), ("york state", range(2, 4))]


HEADER = "key\tid\trare_words\tphrases_2\n"


def test_lists_are_read(tmp_path):
    path = tmp_path / "lists.tsv"
    path.write_text(HEADER + 'a\tx\t["Ardour"]\t["beano", "ardour"]\nb\ty\t[]\t[]\n')
    assert read_lists(path) == {
        "a": HotwordList(("ardour",), ("ardour", "beano")),
        "b": HotwordList((), ()),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key\trare_words\n", "expected the columns key, rare_words and one phrases"),
        (HEADER + "a\tx\t[]\n", "lists.tsv:2: 3 columns, but the header has 4"),
        (HEADER + "a\tx\t[]\t[5]\n", r"lists.tsv:2: '\[5\]' is not a JSON list"),
        (HEADER + "a\tx\t[]\tbeano\n", "lists.tsv:2: 'beano' is not a JSON list"),
        (HEADER + 'a\tx\t[]\t["5"]\n', "lists.tsv:2: hot word '5'"),
        (HEADER + "a\tx\t[]\t[]\n" * 2, "lists.tsv:3: the key 'a' stands there twice"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text, message):
    (tmp_path / "lists.tsv").write_text(text)
    with pytest.raises(HotwordError, match=message):
        read_lists(tmp_path / "lists.tsv")


def test_an_utterance_without_a_list_is_refused(manifest):
    with pytest.raises(ManifestError, match=r"set.jsonl:1: 'a' has no list of hot words"):
        evaluate_hotwords(make_fake("", ""), read_manifest(manifest), {})


def test_the_command_prints_a_table_or_json(manifest, tmp_path, monkeypatch, capsys):
    fake = make_fake("the order of chaos", "the ardour of chaos of new york beano")
    monkeypatch.setattr(Transcriber, "load", lambda name=None, **options: fake)
    lists = tmp_path / "lists.tsv"
    lists.write_text(HEADER + 'a\tx\t["ardour", "chaos"]\t["ardour", "chaos", "beano"]\n')
    argv = ["evaluate", "hotwords", str(manifest), str(lists)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "a: 'beano' was written, but not said" in out
    assert "of the rare words missed without lists, 0% are still missed" in out
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["without"]["recall"], result["with"]["recall"]) == (0.5, 1.0)
    assert result["with"]["false_alarms"] == [["a", "beano"]]
    assert result["with"]["false_alarms_per_10_min"] == 100.0
