"""Confidences are measured against what is right, and fitted to it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from audiossm.config import dump_toml, from_dict, load_toml, to_dict
from audiossm.errors import ConfigError, ModelError
from audiossm.evaluate.confidence import (
    evaluate_confidence,
    hear_words,
    measure_area,
    measure_bins,
)
from audiossm.manifest import read_manifest
from audiossm.models import EVIDENCE, Calibration, Company
from audiossm.streaming import Session, Transcriber, Word
from audiossm_apps.cli import main
from recipe_run import load_recipe
from tiny_model import SPEECH, make_transcriber, read_speech

fit_confidence = load_recipe("transcribe", "fit_confidence")

MANIFEST = SPEECH / "manifest.jsonl"
SURE = Calibration(bias=0.5, score=0.3, margin=0.1, worth=0.2, length=1.0, single=-0.5, share=0.7)


def test_bins_hold_as_many_words_each_in_order_of_confidence():
    sure = np.array([0.9, 0.1, 0.5, 0.7, 0.3])
    right = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    bins = measure_bins(sure, right, 2)
    assert [(b.words, b.lowest, b.highest, b.right) for b in bins] == [
        (3, 0.1, 0.5, pytest.approx(1 / 3)),
        (2, 0.7, 0.9, 1.0),
    ]
    assert bins[0].confidence == pytest.approx(0.3)
    assert measure_bins(np.zeros(0), np.zeros(0), 5) == ()


def test_the_area_is_how_often_right_words_are_surer():
    assert measure_area(np.array([0.1, 0.9]), np.array([0.0, 1.0])) == 1.0
    assert measure_area(np.array([0.9, 0.1]), np.array([0.0, 1.0])) == 0.0
    assert measure_area(np.array([0.5, 0.5, 0.5]), np.array([0.0, 1.0, 1.0])) == 0.5
    assert math.isnan(measure_area(np.array([0.5]), np.array([1.0])))


def test_a_fit_finds_the_model_that_made_the_words():
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(20000, len(EVIDENCE)))
    truth = np.array([SURE.judge(row) for row in evidence.tolist()])
    right = (rng.random(len(truth)) < truth).astype(np.float64)
    bias, weights = fit_confidence.fit(evidence, right, np.ones(len(right)))
    assert bias == pytest.approx(SURE.bias, abs=0.08)
    assert weights == pytest.approx([getattr(SURE, name) for name in EVIDENCE], abs=0.08)
    # a word that counts twice is as good as two
    half = fit_confidence.fit(evidence[:500], right[:500], np.full(500, 2.0))
    both = fit_confidence.fit(
        np.tile(evidence[:500], (2, 1)), np.tile(right[:500], 2), np.ones(1000)
    )
    assert [half[0], *half[1]] == pytest.approx([both[0], *both[1]], abs=1e-3)


def test_a_calibration_judges_between_0_and_1_and_refuses_what_is_no_number():
    assert 0 < SURE.judge([-1e9] * len(EVIDENCE)) < SURE.judge([1e9] * len(EVIDENCE)) < 1
    with pytest.raises(ConfigError, match=r"confidence\.bias is nan"):
        Calibration(**{**vars(SURE), "bias": math.nan})


def test_company_changes_how_sure_words_are_and_not_which_are_told(calibrated, monkeypatch):
    assert SURE.tell(0.7, 0.1) == 0.7
    told = replace(SURE, told=Company(bias=-1.0, alone=1.0, company=2.0))
    assert told.tell(0.7, 0.5) == pytest.approx(0.7)
    assert 0 < told.tell(0.7, 0.1) < 0.7 < told.tell(0.7, 0.9) < 1
    assert 0 < told.tell(0.0, 0.5) < told.tell(1.0, 0.5) < 1
    with pytest.raises(ConfigError, match=r"confidence\.told\.alone is inf"):
        Company(bias=0.0, alone=math.inf, company=0.0)
    speech = read_speech()[:32000]

    def hear() -> list[Word]:
        session = calibrated.session()
        return [e for e in session.push(speech) + session.finish() if isinstance(e, Word)]

    plain = hear()
    monkeypatch.setattr(calibrated, "calibration", told)
    corrected = hear()
    assert [word.word for word in corrected] == [word.word for word in plain]
    assert len(plain) > 1
    # the company of the first word is what a session begins with
    first = calibrated.session().decoder.decoder.config.sure_at_first
    assert corrected[0].confidence == pytest.approx(told.tell(plain[0].confidence, first))
    assert corrected[1].confidence != pytest.approx(told.tell(plain[1].confidence, first))


def test_what_is_told_is_fitted_on_top_of_what_is_there(calibrated, monkeypatch, tmp_path):
    monkeypatch.setattr(
        fit_confidence.RecordingTranscriber, "load", lambda path: recording(calibrated)
    )
    path = tmp_path / "config.toml"
    path.write_text("a = 1\n", encoding="utf-8")
    older = replace(SURE, told=Company(bias=9.0, alone=1.0, company=0.0))
    fit_confidence.write_table(path, dump_toml({"confidence": to_dict(older)}), "x")
    command = [str(MANIFEST), "--model", str(tmp_path), "--told", "--write"]
    assert fit_confidence.main(command) == 0
    table = load_toml(path)["confidence"]
    found = from_dict(Calibration, table, "confidence")
    assert replace(found, told=None) == SURE
    assert found.told is not None and found.told.bias != 9.0
    # another table below it takes it away
    fit_confidence.write_table(path, dump_toml({"confidence": to_dict(SURE)}), "y")
    assert from_dict(Calibration, load_toml(path)["confidence"], "confidence") == SURE
    assert path.read_text(encoding="utf-8").count("#") == 1


def recording(model: Transcriber) -> Transcriber:
    """Return a model whose sessions record."""
    found = object.__new__(fit_confidence.RecordingTranscriber)
    found.__dict__ |= vars(model)
    return found


@pytest.fixture
def calibrated(monkeypatch):
    model = make_transcriber()
    monkeypatch.setattr(model, "calibration", SURE)
    monkeypatch.setattr(model, "decoder", "beam")
    return model


def test_a_calibrated_word_has_the_same_confidence_however_it_is_heard(calibrated, monkeypatch):
    speech = read_speech()[:32000]
    session = calibrated.session()
    whole = [e for e in session.push(speech) + session.finish() if isinstance(e, Word)]
    assert len({round(word.confidence, 6) for word in whole}) > 1
    for size in (320, 5000):
        session, found = calibrated.session(), []
        for at in range(0, len(speech), size):
            found += session.push(speech[at : at + size])
            session = Session.restore(calibrated, session.snapshot())
        words = [e for e in found + session.finish() if isinstance(e, Word)]
        assert [w.word for w in words] == [w.word for w in whole]
        assert [w.confidence for w in words] == pytest.approx(
            [w.confidence for w in whole], abs=1e-3
        )
    monkeypatch.setattr(calibrated, "calibration", None)
    session = calibrated.session()
    plain = [e for e in session.push(speech) + session.finish() if isinstance(e, Word)]
    assert [w.word for w in plain] == [w.word for w in whole]
    assert [w.confidence for w in plain] != [w.confidence for w in whole]


def test_an_evaluation_counts_words_that_are_right(calibrated):
    utterances = read_manifest(MANIFEST)[:2]
    done = []
    result = evaluate_confidence(
        calibrated, utterances, num_bins=4, on_utterance=lambda: done.append(1)
    )
    words = [word for utterance in utterances for word in hear_words(calibrated, utterance, 320)]
    assert result.words == len(words) == sum(item.words for item in result.bins)
    assert result.right == np.mean([right for _, right in words])
    assert 0 <= result.calibration_error <= 1 and result.is_calibrated and len(done) == 2


def test_the_command_prints_bins(calibrated, monkeypatch, capsys):
    monkeypatch.setattr(Transcriber, "load", lambda name=None, **options: calibrated)
    command = ["evaluate", "confidence", str(MANIFEST), "--limit", "1", "--bins", "3"]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 1 <= len(report["bins"]) <= 3 and report["calibration_error"] >= 0
    assert main(command) == 0
    assert "expected calibration error" in capsys.readouterr().out


def test_a_table_replaces_the_one_that_is_there(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("a = 1\n\n# times\n[alignment]\nb = 2\n", encoding="utf-8")
    fit_confidence.write_table(path, "[confidence]\nbias = 1.0", "x")
    fit_confidence.write_table(path, "[confidence]\nbias = 2.0", "y")
    text = path.read_text(encoding="utf-8")
    assert text.count("[confidence]") == 1 and text.count("the probability") == 1
    assert "bias = 2.0" in text and text.startswith("a = 1\n\n# times\n[alignment]\nb = 2\n\n#")


def test_a_model_has_its_calibration_and_keeps_its_hash(tmp_path):
    from audiossm.checkpoint import save_model
    from audiossm.config import dump_toml, to_dict

    model = make_transcriber()
    tables = {"recogniser": to_dict(model.config)}
    save_model(tmp_path / "tiny", "recogniser", "", tables, model.network.state_dict())
    plain = Transcriber.load(tmp_path / "tiny")
    config = tmp_path / "tiny" / "config.toml"
    fit_confidence.write_table(config, dump_toml({"confidence": to_dict(SURE)}), "x")
    loaded = Transcriber.load(tmp_path / "tiny")
    assert (plain.calibration, loaded.calibration) == (None, SURE)
    assert loaded.hash == plain.hash
    config.write_text(config.read_text().replace("bias = ", "bia = "), encoding="utf-8")
    with pytest.raises(ModelError, match="unknown key confidence"):
        Transcriber.load(tmp_path / "tiny")
