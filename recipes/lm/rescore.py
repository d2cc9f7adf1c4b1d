"""Compare a text model with the n-grams: perplexity, and errors where it orders what a beam found.

    python recipes/lm/rescore.py list MANIFEST --out dev.json           # n-best lists, once
    python recipes/lm/rescore.py order dev.json --model runs/lm/model
    python recipes/lm/rescore.py perplexity TEXT.txt --model runs/lm/model --ngrams books

``order`` chooses weights on every second utterance and counts errors on the others, then the other
way round: each utterance's words are those of weights that were chosen without it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torchaudio.functional import edit_distance

from audiossm.decoding import find_decoder
from audiossm.decoding.beam import BeamDecoder
from audiossm.decoding.ngram import MARKS, SENTENCE_END, SENTENCE_START, UNKNOWN, NgramModel
from audiossm.decoding.words import DecodedWord
from audiossm.evaluate.recording import read_recording
from audiossm.manifest import read_manifest
from audiossm.streaming import Transcriber
from audiossm.streaming.listener import Listener
from audiossm.text import normalise_text
from audiossm.train.text_model import TextModel
from audiossm_apps.recipe import run_recipe

LOOKAHEAD_MS = 320
NEVER = 1 << 20
NEURAL = np.linspace(0.0, 2.0, 21)  # what its log-probability is worth
NGRAMS = np.linspace(-1.4, 0.2, 9)  # what theirs is worth beside what the beam gave it
WORDS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # each word


def main() -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["list", "order", "perplexity"])
    parser.add_argument("file", type=Path, help="a manifest, n-best lists, or a text")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--recogniser", help="a name or a folder (default: the best one)")
    parser.add_argument("--ngrams", default="books", help="a name, or a file of make_ngrams.py")
    parser.add_argument("--number", type=int, default=16, help="of readings in a list")
    parser.add_argument("--most", type=int, default=4000, help="lines of the text")
    args = parser.parse_args()
    if args.what == "list":
        lists = list_readings(args.file, args.recogniser, args.number)
        args.out.write_text(json.dumps(lists), encoding="utf-8")
        return
    model, ngrams = TextModel.load(args.model), load_ngrams(args.ngrams)
    if args.what == "order":
        print(json.dumps(order(json.loads(args.file.read_text()), model, ngrams)))
    else:
        lines = [normalise_text(line) for line in args.file.read_text().splitlines()]
        print(json.dumps(perplexity(list(filter(None, lines))[: args.most], model, ngrams)))


def load_ngrams(name: str) -> NgramModel:
    """Return a shipped model, or that of a file."""
    path = Path(name)
    return NgramModel(path.read_bytes(), path.stem) if path.is_file() else NgramModel.load(name)


def list_readings(manifest: Path, recogniser: str | None, number: int) -> list[dict[str, object]]:
    """Return each utterance's text, and what the beam reads it as: texts and log-probabilities.

    Nothing is final before the end, so that the readings are of whole utterances.
    """
    transcriber = Transcriber.load(recogniser) if recogniser else Transcriber.load()
    found = find_decoder(transcriber, transcriber.decoder)
    assert isinstance(found, BeamDecoder), "the recogniser's decoder isn't a beam"
    config = replace(found.config, pause_frames=NEVER, longest_wait=NEVER)
    decoder = BeamDecoder(found.units, found.ngrams, config)
    lists: list[dict[str, object]] = []
    for utterance in read_manifest(manifest):
        listener = Listener(transcriber, 16000, LOOKAHEAD_MS)
        listener.push(read_recording(utterance).at_rate(16000))
        listener.finish()
        heard = listener.heard()
        columns = [part for part in heard if part is not None]
        log_probs = torch.from_numpy(np.concatenate(columns, axis=1))
        told, state = decoder.decode(log_probs, decoder.init_state(0))
        begun = [item.word for item in told if isinstance(item, DecodedWord)]
        readings = [
            (" ".join([*begun, reading.text]).strip(), reading.score)
            for reading in decoder.readings(state, number)
        ]
        text = normalise_text(utterance.text)
        lists.append({"key": utterance.key, "text": text, "readings": readings})
        print(f"{len(lists)}: {readings[0][0] if readings else ''}", flush=True)
    return lists


def order(
    lists: Sequence[dict[str, object]], model: TextModel, ngrams: NgramModel
) -> dict[str, float]:
    """Return word error rates: the beam's, of the best reading in each list, and ordered anew."""
    table = []
    for item in lists:
        reference = str(item["text"]).split()
        readings: list[tuple[str, float]] = item["readings"] or [("", 0.0)]  # type: ignore[assignment]
        texts = [text for text, _ in readings]
        rows = [
            (score, sum(own), sum(score_words(ngrams, text.split())), len(text.split()))
            for (text, score), own in zip(readings, model.score(texts), strict=True)
        ]
        errors = [edit_distance(reference, text.split()) for text in texts]
        table.append((np.array(rows), np.array(errors), len(reference)))
    total = sum(words for _, _, words in table)
    settings = {
        "neural_added": list(product(NEURAL, [0.0], WORDS)),
        "neural_instead": list(product(NEURAL, [-1.4], WORDS)),
        "both": list(product(NEURAL, NGRAMS, WORDS)),
        "ngrams_again": list(product([0.0], NGRAMS, WORDS)),
    }
    result = {
        "beam": sum(int(errors[0]) for _, errors, _ in table) / total,
        "best_in_list": sum(int(errors.min()) for _, errors, _ in table) / total,
    }
    for name, tried in settings.items():
        wrong = np.array([choose(table, np.array([1.0, *weights])) for weights in tried])
        halves = [wrong[:, at::2] for at in (0, 1)]
        best = [int(half.sum(axis=1).argmin()) for half in halves]
        crossed = halves[0][best[1]].sum() + halves[1][best[0]].sum()
        result[name] = float(crossed / total)
        result[f"{name}_fitted"] = float(wrong.sum(axis=1).min() / total)
        print(name, [[round(float(w), 2) for w in tried[at]] for at in best], flush=True)
    return {name: round(value, 4) for name, value in result.items()}


def choose(table: Sequence[tuple[np.ndarray, np.ndarray, int]], weights: np.ndarray) -> list[int]:
    """Return the errors of each list's best reading by these weights."""
    return [int(errors[int((rows @ weights).argmax())]) for rows, errors, _ in table]


def perplexity(lines: Sequence[str], model: TextModel, ngrams: NgramModel) -> dict[str, float]:
    """Return perplexities of words that the n-grams know, and of sentences' ends.

    They are of both models, and of the mean of both probabilities.
    """
    known = set(ngrams.lexicon)
    nats, events, unknown = np.zeros(3), 0, 0
    for line, own in zip(lines, model.score(lines), strict=True):
        words = line.split()
        counted = [word in known for word in words] + [True]
        logs = np.array([own, score_words(ngrams, words)])
        logs = np.vstack([logs, np.logaddexp(*logs) - np.log(2.0)])
        nats += logs[:, counted].sum(axis=1)
        events += sum(counted)
        unknown += len(counted) - sum(counted)
    neural, counts, mean = np.exp(-nats / events)
    return {
        "neural": round(float(neural), 2),
        "ngrams": round(float(counts), 2),
        "mean": round(float(mean), 2),
        "events": events,
        "left_out": unknown,
    }


def score_words(ngrams: NgramModel, words: Sequence[str]) -> list[float]:
    """Return the n-grams' log-probabilities of a sentence's words and of its end."""
    index = number_lexicon(ngrams)
    ids = [SENTENCE_START, *(index.get(word, UNKNOWN) for word in words), SENTENCE_END]
    begin = ngrams.order - 1
    return [score_word(ngrams, ids[max(at - begin, 0) : at], ids[at]) for at in range(1, len(ids))]


@cache
def number_lexicon(ngrams: NgramModel) -> dict[str, int]:
    """Return the ids of the words."""
    return {word: i for i, word in enumerate(ngrams.lexicon, len(MARKS))}


def find_ngram(ngrams: NgramModel, ids: Sequence[int]) -> int:
    """Return the number of an n-gram, or -1."""
    at = ids[0]
    for word in ids[1:]:
        if at >= len(ngrams.first) - 1:
            return -1
        low, high = int(ngrams.first[at]), int(ngrams.first[at + 1])
        place = low + int(np.searchsorted(ngrams.words[low:high], word))
        if place == high or ngrams.words[place] != word:
            return -1
        at = place
    return at


def score_word(ngrams: NgramModel, context: Sequence[int], word: int) -> float:
    """Return a word's log-probability: that of the longest n-gram listed, or by backing off."""
    at = find_ngram(ngrams, [*context, word])
    if at >= 0:
        return float(ngrams.probs[at])
    own = find_ngram(ngrams, context)
    backoff = float(ngrams.backoffs[own]) if 0 <= own < len(ngrams.backoffs) else 0.0
    return backoff + score_word(ngrams, context[1:], word)


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
