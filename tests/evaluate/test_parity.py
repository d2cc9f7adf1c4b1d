"""Parity holds for every way through a session, and a bug in a state is seen."""

import json
import math

import numpy as np
import pytest
import torch

from audiossm.checkpoint import model_names
from audiossm.codec import CausalSTFT, STFTState
from audiossm.decoding import DECODERS
from audiossm.evaluate import parity
from audiossm.evaluate.parity import STATE_TOLERANCE, Parity, evaluate_parity
from audiossm.manifest import read_manifest
from audiossm.models import DEFAULT_MODEL
from audiossm.nn import map_state
from audiossm.streaming import Session, Transcriber, batch
from audiossm_apps.cli import main
from tiny_model import SPEECH, make_transcriber

MANIFEST = SPEECH / "manifest.jsonl"
WAYS = ["20 ms", "37 ms", "1 s", "random", "random, restored", "batch mates"]


@pytest.fixture
def utterances(monkeypatch):
    """Two utterances, cut to different lengths: the odd one has another rate and two channels."""
    found = {item.key: item for item in read_manifest(MANIFEST)}
    read = parity.read_recording

    def read_a_part(utterance):
        recording = read(utterance)
        seconds = 1.1 if utterance.key == "garden" else 0.7
        samples = recording.samples[: round(seconds * recording.sample_rate)]
        return parity.Recording(recording.key, samples, recording.sample_rate)

    monkeypatch.setattr(parity, "read_recording", read_a_part)
    return [found["garden"], found["stereo-44100"]]


def find_failures(result: Parity) -> list[str]:
    return [variant.name for variant in result.variants if not variant.passed]


def test_every_way_gives_the_tokens_of_one_push(utterances):
    done = []
    result = evaluate_parity(make_transcriber(), utterances, on_utterance=lambda: done.append(1))
    assert result.passed and not result.differences
    assert [variant.name for variant in result.variants] == WAYS
    for variant in result.variants:
        assert (variant.utterances, variant.differing_tokens, variant.differing_words) == (2, 0, 0)
        assert variant.tokens > 10
        assert variant.max_state_difference <= STATE_TOLERANCE
    assert len(done) == 2


def test_a_stft_that_forgets_is_seen_and_told_with_its_margin(utterances, monkeypatch):
    step = CausalSTFT.step

    def forget(self, x, state):
        y, new_state = step(self, x, state)
        return y, STFTState(torch.zeros_like(new_state.tail))

    monkeypatch.setattr(CausalSTFT, "step", forget)
    transcriber = make_transcriber()
    result = evaluate_parity(transcriber, utterances)
    assert not result.passed
    assert find_failures(result) == WAYS
    worst = result.variants[0]
    own = [item for item in result.differences if item.variant == worst.name]
    assert len(own) == worst.differing_tokens > 0
    for item in result.differences:
        assert item.expected != item.found
        assert {item.expected, item.found} - {None} <= set(transcriber.vocabulary.pieces)
        assert (
            item.key in ("garden", "stereo-44100") and 0 <= item.frame < 56 + 12
        )  # 1.1 s, padded, and silence
        assert 0 <= item.margin < math.inf


def test_a_snapshot_that_turns_an_angle_is_seen(utterances, monkeypatch):
    load = Session._load

    def lose(self, arrays):
        load(self, arrays)
        upper = self.network_state.upper
        lost = tuple(part._replace(angle=part.angle + 0.5) for part in upper)
        self.network_state = self.network_state._replace(upper=lost)

    monkeypatch.setattr(Session, "_load", lose)
    assert find_failures(evaluate_parity(make_transcriber(), utterances)) == ["random, restored"]


def test_a_snapshot_that_loses_the_word_in_progress_is_seen(utterances, monkeypatch):
    load = Session._load

    def lose(self, arrays):
        load(self, arrays)
        state = self.decoder_state
        lost = state.decoder._replace(length=np.array(0, np.int64))
        self.decoder_state = state._replace(decoder=lost)

    monkeypatch.setattr(Session, "_load", lose)
    result = evaluate_parity(make_transcriber(), utterances)
    assert find_failures(result) == ["random, restored"]
    restored = next(variant for variant in result.variants if variant.name == "random, restored")
    assert restored.differing_tokens == 0 and restored.differing_words > 0


def test_a_batch_that_feeds_ended_rows_on_is_seen(utterances, monkeypatch):
    monkeypatch.setattr(batch, "where_state", lambda mask, new, old: new)
    assert find_failures(evaluate_parity(make_transcriber(), utterances)) == ["batch mates"]


def test_not_a_number_in_a_state_fails():
    variant = parity.Variant("x")
    good = parity.Heard({}, [], {"a": torch.zeros(2)})
    parity.compare(variant, good, parity.Heard({}, [], {"a": torch.tensor([0.0, math.nan])}))
    assert variant.max_state_difference == math.inf and not variant.passed


def test_the_command_prints_a_table_or_json_and_its_exit_code_tells(
    utterances, monkeypatch, capsys
):
    monkeypatch.setattr(
        Transcriber,
        "load",
        lambda name=None, *, device="cpu", decoder=None, backend="auto", readable=False: (
            make_transcriber()
        ),
    )
    command = ["evaluate", "parity", str(MANIFEST), "--limit", "1"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] and found["differences"] == [] and found["model"] == "tiny"
    assert [variant["name"] for variant in found["variants"]] == WAYS
    monkeypatch.setattr(
        Session,
        "_load",
        lambda self, arrays: setattr(
            self, "network_state", map_state(torch.zeros_like, self.network_state)
        ),
    )
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "batch mates" in printed and "FAIL" in printed
    assert "random, restored: river: label frame" in printed and "top-two margin" in printed


@pytest.mark.skipif(DEFAULT_MODEL not in model_names(), reason="the model isn't in this checkout")
@pytest.mark.parametrize("decoder", DECODERS)
def test_the_shipped_model_keeps_parity(utterances, decoder):
    result = evaluate_parity(Transcriber.load(decoder=decoder), utterances)
    assert result.passed, result.to_json()
    assert result.variants[0].tokens > 0
