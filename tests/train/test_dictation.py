"""What a writer reads in training: running words, labels as late as its outputs, borders."""

from pathlib import Path

import pytest
import torch

from audiossm.evaluate.writing import read_lines
from audiossm.marks import CASES, MARKS
from audiossm.models import BORDER, WriterConfig
from audiossm.train.dictation import IGNORED, Dictation, Page, writing_loss
from audiossm.train.sentences import Sentences

LINES = read_lines(Path(__file__).parents[1] / "text" / "sentences.txt")
SENTENCES = Sentences.read(LINES)
CONFIG = WriterConfig.tiny(" ".join(SENTENCES.words[:300]))
HP = {"seed": 3, "rows": 4, "row_words": 128, "block": 8}
HP |= {"border": 0.0, "cut": 0.0, "misheard": 0.0, "unknown": 0.0}
CPU = torch.device("cpu")


def dictate(**changes: float) -> Dictation:
    return Dictation(CONFIG, SENTENCES, HP | changes, CPU)


def read_items(dictation: Dictation, number: int) -> list[int]:
    """The order of a pass, as indices into the running words; the border is the last."""
    return dictation._order(number).tolist()


@pytest.mark.parametrize("number", [0, 1])
def test_a_pass_has_every_word_once_and_keeps_sentences_whole(number):
    items = read_items(dictate(), number)
    assert sorted(items) == list(range(len(SENTENCES.ids)))
    starts = {*SENTENCES.starts.tolist()}
    jumps = [b for a, b in zip(items, items[1:], strict=False) if b != a + 1]
    assert {*jumps} <= starts
    # in every other pass sentences stay together in blocks
    assert len(jumps) < len(LINES) / 4 if number else len(jumps) > len(LINES) / 2


def test_borders_come_after_sentences_and_at_cuts():
    border = len(SENTENCES.ids)
    items = read_items(dictate(border=1.0), 0)
    assert items.count(border) == CONFIG.lookahead * len(LINES)
    ends = {end - 1 for end in SENTENCES.starts.tolist()[1:]}
    before = {a for a, b in zip(items, items[1:], strict=False) if b == border != a}
    assert before == ends
    cut = read_items(dictate(cut=1.0), 0)
    assert sorted(item for item in cut if item != border) == list(range(border))
    inside = {a for a, b in zip(cut, cut[1:], strict=False) if b == border != a}
    assert inside and not inside & ends


def test_labels_are_as_late_as_the_outputs():
    dictation = dictate(border=0.5)
    page = dictation.page(0)
    items = dictation.stream[: 4 * 128].view(4, 128)
    assert page.features.shape == (4, 128, 7)
    late = CONFIG.lookahead
    assert (page.cases[:, :late] == IGNORED).all()
    for row, column in ((0, 0), (1, 17), (3, 125)):
        item = int(items[row, column])
        case, mark = page.cases[row, column + late], page.marks[row, column + late]
        if item == len(SENTENCES.ids):
            assert case == mark == IGNORED
            assert page.features[row, column].tolist() == CONFIG.features([BORDER])[0].tolist()
        else:
            assert int(case) * len(MARKS) + int(mark) == SENTENCES.labels[item]
            word = SENTENCES.words[SENTENCES.ids[item]]
            assert page.features[row, column].tolist() == CONFIG.features([word])[0].tolist()


def test_a_page_is_a_function_of_the_step():
    one, other = dictate(misheard=0.2, unknown=0.2), dictate(misheard=0.2, unknown=0.2)
    pages = [one.page(step) for step in range(2 * one.num_batches)]
    for step in (one.num_batches + 1, 0, 2):
        for a, b in zip(pages[step], other.page(step), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(pages[0].features, pages[one.num_batches].features)


def test_misheard_and_unknown_words_keep_their_labels():
    plain, changed = dictate().page(0), dictate(misheard=0.3).page(0)
    assert torch.equal(plain.marks, changed.marks)
    share = (plain.features != changed.features).any(-1).float().mean()
    assert 0.2 < share < 0.35
    unknown = dictate(unknown=1.0).page(0).features
    assert (unknown[..., 0] == 0).all()
    assert torch.equal(unknown[..., 1:], plain.features[..., 1:])


def test_the_loss_counts_labels_alone():
    labels = torch.tensor([[IGNORED, 1]])
    page = Page(torch.zeros(1, 2, 7), labels, labels)
    logits = torch.zeros(1, 2, len(CASES) + len(MARKS))
    loss, parts = writing_loss(logits, page)
    assert float(loss) == pytest.approx(float(torch.log(torch.tensor(12.0))))
    logits[0, 0] += torch.randn(7)
    assert writing_loss(logits, page)[0] == loss
    logits[0, 1, 1] = 5.0
    assert writing_loss(logits, page)[1]["case"] < parts["case"]
