"""``audiossm evaluate speech`` on a random generator: nobody understands it, and it says so."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from audiossm.checkpoint import save_model
from audiossm.config import to_dict
from audiossm.decoding.sampling import Sampling
from audiossm.errors import ConfigError, ModelError
from audiossm.evaluate import speech_parity
from audiossm.evaluate.recording import read_recording
from audiossm.evaluate.speech import (
    SpeechEvaluation,
    choose_prompts,
    evaluate_speech,
    make_texts,
)
from audiossm.evaluate.speech_continuation import (
    FreeRun,
    count_bits,
    encode,
    find_entropy,
    guess_codes,
)
from audiossm.evaluate.speech_parity import compare_cuts
from audiossm.evaluate.speech_takes import Manner, Studio
from audiossm.evaluate.speech_voices import Likeness, measure_voices
from audiossm.evaluate.speech_words import Heard, Hearing, hear_takes
from audiossm.evaluate.wer import WordErrors
from audiossm.manifest import Utterance, read_manifest
from audiossm.models import LoadedGenerator, save_generator
from audiossm.models.voices import Voice, make_nobody, save_voice
from audiossm.streaming import Speaker, Transcriber
from audiossm_apps.cli import main
from tiny_model import SPEECH, make_transcriber
from tiny_speaker import TEXT, make_generator, make_speaker, make_voice
from toy_codec import make_audio_codec, make_codec

MANIFEST = SPEECH / "manifest.jsonl"


@pytest.fixture(scope="module")
def utterances():
    return read_manifest(MANIFEST)[:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    codec = make_codec()
    save_model(path / "toy", "codec", "", {"codec": to_dict(codec.config)}, codec.state_dict())
    for name, seed in (("tiny", 5), ("other", 6)):
        save_generator(path / name, "says", make_generator(seed), make_audio_codec())
    speaker = Speaker.load(path / "tiny")
    vector = np.linspace(-1, 1, speaker.config.d_voice).astype(np.float32)
    save_voice(
        speaker, Voice(name="anna", vector=vector, origin="made up for tests", licence="CC0-1.0")
    )
    return path


def test_takes_from_a_folder_are_those_that_were_said(utterances, tmp_path):
    speaker = make_speaker()
    nobody = make_nobody(speaker)
    told = []
    first = Studio(speaker, Manner(), tmp_path, told.append)
    said, real = first.say(utterances[0], nobody, 0), first.replay(utterances[0])
    again = Studio(speaker, Manner(), tmp_path, told.append)
    kept, kept_real = again.say(utterances[0], nobody, 0), again.replay(utterances[0])
    assert said.processing_s > 0 and kept.processing_s is None
    np.testing.assert_array_equal(kept.samples, said.samples)
    np.testing.assert_array_equal(kept_real.samples, real.samples)
    assert len(told) == 4
    unkept = Studio(speaker, Manner()).say(utterances[0], nobody, 0)
    np.testing.assert_array_equal(unkept.samples, said.samples)
    with pytest.raises(ConfigError, match="give another folder"):
        Studio(speaker, Manner(seed=1), tmp_path)


def test_capitals_are_not_spelled(tmp_path):
    studio = Studio(make_speaker(), Manner())
    take = studio.say(Utterance(key="a", text="HELLO THERE"), make_nobody(studio.speaker), 0)
    assert take.text == "hello there"


def make_heard(key, words, confidences, errors=None, voice="anna"):
    take = Studio(make_speaker(), Manner()).say(
        Utterance(key=key, text=" ".join(words)), make_nobody(make_speaker()), 0
    )
    take = type(take)(**(vars(take) | {"voice": voice}))
    return Heard(
        take=take,
        hypothesis="",
        errors=errors or WordErrors(words=len(words)),
        words=tuple(words),
        confidences=tuple(confidences),
        starts_s=(0.0,) * len(words),
    )


def test_lost_words_are_below_almost_all_of_the_recordings():
    real = make_heard("r", ["that"] * 200, np.linspace(0.2, 1.0, 200))
    said = make_heard("s", ["the", "that", "a"], [0.15, 0.25, 0.9])
    hearing = Hearing(said=(said,), real=(real,), recogniser="tiny")
    assert 0.2 < hearing.least_confidence < 0.22
    assert [(word.word, word.voice) for word in hearing.lost] == [("the", "anna")]
    assert hearing.lost_share == pytest.approx(1 / 3)


def test_errors_are_measured_against_those_of_recordings():
    said = make_heard("s", ["the"] * 10, [1.0] * 10, WordErrors(2, 1, 0, 10))
    real = make_heard("s", ["the"] * 10, [1.0] * 10, WordErrors(1, 0, 1, 10))
    none = make_heard("s", ["the"] * 10, [1.0] * 10)
    assert Hearing(said=(said,), real=(real,), recogniser="").ratio == pytest.approx(1.5)
    assert Hearing(said=(said,), real=(none,), recogniser="").ratio is None


def test_words_that_have_no_room_are_lost(utterances):
    take = Studio(make_speaker(), Manner()).replay(utterances[0])
    short = type(take)(**(vars(take) | {"samples": take.samples[:1600]}))
    (heard,) = hear_takes(make_transcriber(), [short])
    assert len(heard.words) == len(take.text.split())
    assert set(heard.confidences) == {0.0}


def test_guessed_bits_are_those_of_steps_one_by_one(utterances):
    """As the network steps in a stream: what is guessed of a code doesn't know it."""
    speaker = make_speaker()
    codes = encode(speaker, read_recording(utterances[0]))[:, :7]
    bits = guess_codes(speaker, codes)
    network, config = speaker.network, speaker.config
    silent = speaker.read(np.zeros((config.window, 3), np.int64))
    who = speaker.tell_voice(np.zeros(config.d_voice, np.float32), 0.0)
    late = np.full((codes.shape[1] + config.num_groups, config.num_groups), config.num_codes)
    for group in range(config.num_groups):
        late[1 + group : 1 + group + codes.shape[1], group] = codes[group]
    state = network.init_state(1)
    for step in range(codes.shape[1] + config.num_groups - 1):
        outputs, state = network.step(speaker.embed(late[step], silent, 0, who), state)
        guesses = outputs[0, 0, :-1].view(config.num_groups, -1).double().log_softmax(-1)
        for group in range(config.num_groups):
            if 0 <= step - group < codes.shape[1]:
                code = codes[group, step - group]
                expected = -float(guesses[group, code]) / math.log(2)
                assert bits[group, step - group] == pytest.approx(expected, abs=1e-3)


def test_a_control_is_compared_on_the_same_codes(utterances, folder):
    speaker = make_speaker()
    same = count_bits(speaker, utterances, speaker)
    assert same.saved == pytest.approx(0.0)
    assert same.model != count_bits(LoadedGenerator.load(folder / "other"), utterances).model
    # a random network's guesses are worse than a uniform one's
    uniform = math.log2(speaker.config.num_codes) * speaker.config.num_groups
    assert sum(same.model) > uniform > sum(same.unigram)
    with pytest.raises(ConfigError, match="other codes"):
        count_bits(speaker, utterances, speaker_of_other_codes())


def test_bits_behind_a_prompt_are_told_too(utterances, monkeypatch):
    speaker = make_speaker()
    found = [guess_codes(speaker, encode(speaker, read_recording(item))) for item in utterances]
    monkeypatch.setattr("audiossm.evaluate.speech_continuation.PROMPT_S", 0.1)
    bits = count_bits(speaker, utterances, speaker)
    later = np.concatenate([item[:, 5:] for item in found], axis=1)
    assert bits.frames == sum(item.shape[1] for item in found)
    assert bits.later is not None and bits.later.frames == later.shape[1]
    assert bits.later.model == pytest.approx(later.mean(axis=1), rel=1e-6)
    assert bits.later.saved == pytest.approx(0.0)
    assert bits.to_json()["after_prompt"]["frames"] == later.shape[1]
    monkeypatch.setattr("audiossm.evaluate.speech_continuation.PROMPT_S", 1000.0)
    assert count_bits(speaker, utterances).later is None  # nobody speaks so long


def speaker_of_other_codes():
    return Speaker(make_generator(), make_audio_codec(4), name="else", model_hash="0")


def test_entropy_of_codes():
    assert find_entropy(np.array([[0, 1, 2, 3], [5, 5, 5, 5]])) == pytest.approx(1.0)


def test_cuts_change_nothing_and_are_seen_if_they_do(monkeypatch):
    speaker = make_speaker()
    nobody = make_nobody(speaker)
    same = compare_cuts(speaker, [TEXT], lambda number: nobody, sampling=Sampling(), seed=3)
    assert same.passed and same.frames > 50 and same.restored and not same.max_sample_difference
    monkeypatch.setattr(speech_parity, "cut", lambda text, rng: [text[:-5]])
    other = compare_cuts(speaker, [TEXT], lambda number: nobody, sampling=Sampling())
    assert not other.passed and other.differing_words


def judge(**parts):
    empty = {"hearing": None, "likenesses": (), "bits": None, "runs": (), "parity": None}
    about = {"model": "tiny", "model_hash": "", "control": None, "manner": {}, "machine": {}}
    return SpeechEvaluation(**(empty | about | {"said_s": 0.0, "rtf": None} | parts))


def test_what_is_beyond_a_limit_fails():
    def voice(pitch, distance):
        return Likeness(
            voice="anna",
            num_recordings=1,
            pitch=pitch,
            real_pitch=200.0,
            distance=distance,
            nobody_distance=8.0,
            seconds=1.0,
            real_seconds=1.0,
        )

    def run(rms, entropy):
        rest = {"early_rms": 0.1, "early_entropy": 8.0}
        return FreeRun(key="r", late_rms=rms, late_entropy=entropy, **rest)

    assert judge(likenesses=(voice(210.0, 6.0),), runs=(run(0.15, 7.5),)).passed
    for bad in (voice(230.0, 6.0), voice(210.0, 7.5), voice(None, 6.0)):
        assert not judge(likenesses=(bad,)).passed
    for worse in (run(0.04, 8.0), run(0.1, 6.0)):
        assert not judge(runs=(worse,)).passed


def test_a_voice_is_to_be_nearer_than_the_default_one_which_is_to_be_nearer_than_nobody():
    def voice(name, distance, default=None, default_distance=None):
        return Likeness(
            voice=name,
            num_recordings=1,
            pitch=200.0,
            real_pitch=200.0,
            distance=distance,
            nobody_distance=8.0,
            seconds=1.0,
            real_seconds=1.0,
            default_voice=default,
            default_distance=default_distance,
        )

    anna, ben = voice("anna", 6.0, "anna"), voice("ben", 6.0, "anna", 7.2)
    found = judge(likenesses=(anna, ben))
    assert found.passed
    told = {verdict.what: verdict.value for verdict in found.verdicts if "near" in verdict.what}
    assert told == {
        "anna: nearer than nobody": 0.25,
        "ben: nearer than default voice anna": pytest.approx(1 / 6),
    }
    assert not judge(likenesses=(voice("ben", 6.0, "anna", 7.0),)).passed
    assert not judge(likenesses=(voice("anna", 7.0, "anna"),)).passed
    assert judge(likenesses=(voice("ben", 6.0),)).passed  # of a model whose default is nobody's
    assert ben.to_json()["nearer_than_nobody"] == 0.25
    assert ben.to_json()["nearer_than_default"] == pytest.approx(1 / 6)
    assert anna.to_json()["nearer_than_default"] is anna.to_json()["default_distance"] is None


def test_the_default_voice_says_the_sentences_of_each_other_voice_once(utterances):
    told = []
    speaker = make_speaker()
    studio = Studio(speaker, Manner(), on_take=told.append)
    anna, nobody = make_voice(), make_nobody(speaker)
    ben = replace(anna, name="ben", pace=-0.2)
    recordings = {"anna": utterances[:1], "ben": utterances}

    def count():
        found = Counter((take.voice, take.key) for take in told if take.processing_s is not None)
        told.clear()
        return found

    first, second = measure_voices(studio, [anna, ben], recordings, anna)
    a, b = (item.key for item in utterances)
    expected = [("anna", a), ("", a), ("ben", a), ("ben", b), ("", a), ("", b)]
    assert count() == Counter([*expected, ("anna", a), ("anna", b)])
    assert (first.default_voice, first.default_distance) == ("anna", None)
    assert second.default_voice == "anna" and second.nearer_than_default is not None
    other = measure_voices(studio, [anna], {"anna": utterances}, ben)[0]
    alone = measure_voices(studio, [ben], {"ben": utterances}, nobody)[0]
    assert second.default_distance == pytest.approx(other.distance)
    assert (alone.default_voice, alone.nearer_than_default) == (None, None)
    assert alone.nobody_distance == second.nobody_distance


def test_prompts_are_of_different_speakers_and_texts_of_two_sentences():
    items = [Utterance(key=str(i), text=f"word {i}", speaker=who) for i, who in enumerate("aab")]
    assert [item.key for item in choose_prompts(items, 2)] == ["0", "2"]
    assert [item.key for item in choose_prompts(items, 3)] == ["0", "2", "1"]
    assert make_texts(items) == ["word 0. word 1?", "word 1. word 2?"]
    assert make_texts(items[:1]) == ["word 0"]


def test_the_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Transcriber, "load", lambda name=None: make_transcriber())
    monkeypatch.setattr("audiossm.evaluate.speech_continuation.FREE_S", 0.4)
    monkeypatch.setattr("audiossm.evaluate.speech_continuation.EARLY", (0.0, 0.2))
    monkeypatch.setattr("audiossm.evaluate.speech_continuation.LATE", (0.2, 0.4))
    voices = tmp_path / "voices.jsonl"
    row = json.loads(MANIFEST.read_text().splitlines()[2]) | {"speaker": "anna"}
    voices.write_text(json.dumps(row | {"path": str(SPEECH / row["path"])}))
    argv = ["evaluate", "speech", str(MANIFEST), "--model", str(folder / "tiny"), "--limit", "2"]
    argv += ["--voices-manifest", str(voices), "--control", str(folder / "other")]
    argv += ["--keep", str(tmp_path / "keep")]
    assert main([*argv, "--json"]) == 1  # it says nothing that anybody understands
    found = json.loads(capsys.readouterr().out)
    assert found["words"]["sentences"] == 2 and found["words"]["wer"] > 0.5
    assert set(found["words"]["per_voice"]) == {"anna"}
    assert [item["voice"] for item in found["voices"]] == ["anna"]
    assert found["bits"]["control"] == "other" and found["streaming"]["passed"]
    assert len(found["free_runs"]) == 2
    assert not found["passed"] and found["manner"]["sampling"]["top_k"] == 40
    assert main([*argv, "--free-temperature", "1", "--free-runs", "1"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("louder, dB") == 1
    assert "behind a prompt of 3 s: model " in printed
    assert "word errors over recordings'" in printed and "FAIL: anna: " in printed
    assert "pass: frames changed by cuts 0.000" in printed


def test_voices_are_compared_with_the_one_that_generate_uses(folder, tmp_path, capsys):
    models = tmp_path / "models"
    shutil.copytree(folder, models)
    config = models / "tiny" / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(f'voice = "anna"\n{text}', encoding="utf-8")
    speaker = Speaker.load(models / "tiny")
    save_voice(speaker, replace(speaker.voice("anna"), name="ben", pace=0.2))
    manifest = tmp_path / "voices.jsonl"
    row = json.loads(MANIFEST.read_text().splitlines()[2])
    row |= {"path": str(SPEECH / row["path"])}
    lines = [json.dumps(row | {"speaker": name, "key": name}) for name in ("anna", "ben")]
    manifest.write_text("\n".join(lines))
    argv = ["evaluate", "speech", str(MANIFEST), "--model", str(models / "tiny")]
    argv += ["--measures", "voices", "--voices-manifest", str(manifest)]
    main([*argv, "--json"])
    anna, ben = json.loads(capsys.readouterr().out)["voices"]
    assert (anna["default_voice"], anna["nearer_than_default"]) == ("anna", None)
    assert ben["default_distance"] == anna["distance"]  # of the same sentence
    assert ben["nearer_than_default"] == 1 - ben["distance"] / anna["distance"]
    main(argv)
    printed = capsys.readouterr().out
    assert "default's dB" in printed
    assert "anna: nearer than nobody" in printed
    assert "ben: nearer than default voice anna" in printed
    config.write_text(f'voice = "gone"\n{text}', encoding="utf-8")
    studio = Studio(Speaker.load(models / "tiny"), Manner())
    with pytest.raises(ModelError, match="no voice 'gone'"):
        evaluate_speech(studio, (), (), measures=["voices"], recordings={"ben": ()})


def test_usage(folder, capsys):
    argv = ["evaluate", "speech", str(MANIFEST), "--model", str(folder / "tiny")]
    for options in (
        ["--measures", "voices"],
        ["--measures", "words", "--control", "x"],
        ["--measures", "noise"],
    ):
        with pytest.raises(SystemExit) as caught:
            main([*argv, *options])
        assert caught.value.code == 2
    assert "is not one of words" in capsys.readouterr().err
