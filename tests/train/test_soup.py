"""A soup takes in what helps its average, judged by the words that the default search finds."""

from pathlib import Path

import torch

from audiossm.manifest import read_manifest
from audiossm.models import Recogniser, RecogniserConfig
from audiossm.train.corpus import Corpus
from audiossm.train.soup import average, choose_share, choose_soup, hear, mix, read

SPEECH = Path(__file__).parents[1] / "speech"


def test_the_best_comes_first_and_only_what_helps_joins_it():
    models = {
        name: {"w": torch.tensor([x])}
        for name, x in zip("abcd", (3.0, 1.5, -1.0, 9.0), strict=True)
    }
    tried = []
    chosen = choose_soup(
        models, lambda weights: abs(weights["w"].item()), lambda names, _: tried.append(names)
    )
    assert chosen == ["c", "b"]  # 0.25; with a 1.17, with d 3.17
    assert tried == [["a"], ["b"], ["c"], ["d"], ["c", "b"], ["c", "b", "a"], ["c", "b", "d"]]
    assert average([models["a"], models["c"]])["w"].item() == 1.0


def test_a_base_is_left_only_as_far_as_helps():
    tried = []
    base, tuned = {"w": torch.tensor([2.0])}, {"w": torch.tensor([-1.0])}
    share = choose_share(
        base, tuned, lambda weights: abs(weights["w"].item()), lambda *each: tried.append(each)
    )
    assert share == 0.7 and [each[0] for each in tried] == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert mix(base, tuned, 0.5)["w"].item() == 0.5


def test_a_judge_hears_each_recording_as_it_is_alone_and_counts_all_words():
    torch.manual_seed(0)
    network = Recogniser(RecogniserConfig.tiny()).eval()
    corpus = Corpus.load(read_manifest(SPEECH / "manifest.jsonl")[:3], (), ())
    together = dict(hear(network, corpus))
    for item in range(3):
        alone = Corpus(
            corpus.audio, corpus.starts[[item]], corpus.sizes[[item]], (), (),
            [corpus.texts[item]], [""],
        )  # fmt: skip
        ((text, log_probs),) = hear(network, alone)
        torch.testing.assert_close(torch.from_numpy(log_probs), torch.from_numpy(together[text]))
    words = sum(len(text.split()) for text in corpus.texts)
    errors, counted = read(("greedy", network.config.pieces, (), list(together.items())))
    assert counted == words and errors > 0
