"""Scores of written text: what counts, and that nothing tells where a sentence ends."""

import json

import pytest
import torch

from audiossm.errors import ManifestError
from audiossm.evaluate.writing import (
    ClassScore,
    find_logits,
    mishear,
    score_forms,
    score_writer,
    true_forms,
)
from audiossm.marks import read_marks
from audiossm.models import Forms, save_writer
from audiossm.train.offsets import find_offsets
from audiossm_apps.cli import main
from tiny_writer import make_writer

LINES = ["The cat is here, said Tom.", "Is it a USA dog?", "The dog said no."]
WORDS = [item for line in LINES for item in read_marks(line)]


def test_f1_is_that_of_each_class():
    truth = true_forms(WORDS)
    scores = score_forms(truth, truth)
    assert {name: score.right for name, score in scores.items()} == {
        "full stop": 2,
        "comma": 1,
        "question mark": 1,
        "capitals": 5,
        "upper case": 1,
    }
    assert all(score.f1 == 1 for score in scores.values())
    nothing = Forms(torch.zeros_like(truth.cases), torch.zeros_like(truth.marks))
    assert all(score.f1 == 0 for score in score_forms(truth, nothing).values())
    score = ClassScore(right=3, wrong=1, missed=2)
    assert (score.precision, score.recall, score.f1) == (0.75, 0.6, pytest.approx(2 / 3))


def test_long_texts_go_in_pieces():
    words = WORDS * 80
    logits = find_logits(make_writer().network, words)
    assert logits.shape == (len(words), 7)
    torch.testing.assert_close(
        logits[:14], find_logits(make_writer().network, words[:20])[:14], rtol=1e-4, atol=1e-4
    )


def test_how_lines_are_broken_tells_nothing():
    writer = make_writer()
    assert score_writer(writer, LINES).classes == score_writer(writer, [" ".join(LINES)]).classes
    with pytest.raises(ManifestError, match="no words"):
        score_writer(writer, ["..."])


def test_misheard_words_mislead_but_do_not_count():
    words = WORDS * 40
    heard = mishear(words, 0.2)
    changed = [at for at, (item, true) in enumerate(zip(heard, words, strict=True)) if item != true]
    assert 0.15 < len(changed) / len(words) < 0.2  # some are replaced by themselves
    assert heard == mishear(words, 0.2) and mishear(words, 0.0) == words
    assert all(heard[at][1:] == words[at][1:] for at in changed)  # what is right stays so
    score = score_writer(make_writer(), LINES * 40, 0.2)
    assert score.misheard == len(changed)
    capitals = score.classes["capitals"]
    kept = [item for item, true in zip(heard, words, strict=True) if item == true]
    assert capitals.right + capitals.missed == sum(item.case > 0 for item in kept)


def test_offsets_are_those_with_the_best_f1():
    network, words = make_writer().network, WORDS * 20
    offsets = find_offsets(network, words)
    logits, truth = find_logits(network, words), true_forms(words)

    def worth(logits: torch.Tensor) -> float:
        from audiossm.models import choose_forms

        scores = score_forms(truth, choose_forms(logits, 2))
        return sum(score.f1 for name, score in scores.items() if name != "upper case")

    assert offsets.any() and worth(logits + offsets) > worth(logits)


def test_the_command_prints_a_table_and_json(tmp_path, capsys):
    save_writer(tmp_path / "hand", "", make_writer().network)
    (tmp_path / "some.txt").write_text("\n".join(LINES))
    command = ["evaluate", "writing", str(tmp_path / "some.txt"), "--model", str(tmp_path / "hand")]
    assert main(command) == 0
    assert "hand, 3 sentences of 15 words" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"].keys() == {
        *("full stop", "comma", "question mark", "capitals", "upper case"),
    }
    assert found["misheard"] == 0
    assert main([*command, "--misheard", "0.5"]) == 0
    assert " misheard" in capsys.readouterr().out
    for wrong in ("2", "-1", "nan", "much"):
        with pytest.raises(SystemExit):
            main([*command, "--misheard", wrong])
        assert "share" in capsys.readouterr().err
    assert main([*command[:2], str(tmp_path / "none.txt"), *command[3:]]) == 1
    assert "can't read these sentences" in capsys.readouterr().err
