"""The corpus of synthetic speech: what is spoken by whom, and that it is what the manifest says."""

import importlib.util
import io
import itertools
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from audiossm.audio import open_audio
from audiossm.manifest import read_manifest

TOOL = Path(__file__).parents[2] / "recipes" / "transcribe" / "make_speech.py"
needs_espeak = pytest.mark.skipif(
    not (shutil.which("espeak-ng") and shutil.which("opusenc")),
    reason="needs espeak-ng and opusenc",
)
VOICES = {"espeak": {"en-us": 1.0}, "rhvoice": {"bdl": 2.0, "clb": 1.0}}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_speech", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_speech", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def make_sentences(word: str, count: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        f"The {word} {letters[i % 26]}{letters[i // 26 % 26]} sleeps" + " and waits" * (i % 9) + "."
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("  He said (quietly) that it was late. \n", "He said quietly that it was late."),
        ('"Mr. Hale -- and Mrs. Dee," said I.', "Mister Hale and Missus Dee, said I."),
        ("Send it to Dr. Lee at once!", "Send it to Doctor Lee at once!"),
        ("I don't like well-known things.", "I don't like well-known things."),
        ("It was too short.", "It was too short."),
        ("Only three words.", ""),
        ("no " * 25, ("no " * 25).strip()),
        ("no " * 26, ""),
        ("There were 12 of them there.", ""),
        ("He came at six p.m. and left.", ""),
        ("Well... I am not so sure.", ""),
        ("Charles II was not the first.", ""),
        ("The café was closed that day.", ""),
        ("", ""),
    ],
)
def test_only_lines_that_sound_as_they_are_written_are_spoken(tool, line, text):
    assert tool.clean_sentence(line) == text


def test_a_seed_fixes_the_plan_and_another_changes_it(tool):
    files = [make_sentences("cat", 200), make_sentences("dog", 200)]
    plans = [list(tool.plan(files, [1.0, 1.0], VOICES, seed)) for seed in (3, 3, 4)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_no_sentence_is_spoken_twice(tool):
    sentences = make_sentences("cat", 100)
    files = [sentences, [text.upper().capitalize() for text in sentences] + ["He is here, too."]]
    texts = [tool.normalise_text(take.text) for take in tool.plan(files, [1.0, 1.0], VOICES, 0)]
    assert len(set(texts)) == len(texts) > 90


def test_files_and_voices_speak_by_their_shares(tool):
    files = [make_sentences("cat", 676), make_sentences("dog", 676)]
    takes = list(itertools.islice(tool.plan(files, [3.0, 1.0], VOICES, 0), 600))
    cats = sum("cat" in take.text for take in takes)
    assert cats / 600 == pytest.approx(0.75, abs=0.06)
    voices = Counter((take.synthesiser, take.voice) for take in takes)
    assert voices["rhvoice", "bdl"] / 600 == pytest.approx(0.5, abs=0.06)
    assert voices["espeak", "en-us"] / 600 == pytest.approx(0.25, abs=0.06)


def test_longer_sentences_come_sooner(tool):
    takes = list(tool.plan([make_sentences("cat", 600)], [1.0], VOICES, 0))
    lengths = [len(take.text) for take in takes]
    assert len(lengths) == 600
    assert np.mean(lengths[:200]) > 1.1 * np.mean(lengths)


def test_rates_and_pitches_stay_where_the_synthesisers_can_follow(tool):
    takes = list(tool.plan([make_sentences("cat", 600)], [1.0], VOICES, 0))
    for take in takes:
        command = tool.make_command(take, "x.wav")
        if take.synthesiser == "espeak":
            assert 130 <= int(command[command.index("-s") + 1]) <= 200
            assert 20 <= int(command[command.index("-p") + 1]) <= 80
            assert take.warp == 1.0
        else:
            assert 85 <= int(command[command.index("-r") + 1]) <= 125
            assert 0.93 <= take.warp <= 1.07
    assert {take.warp for take in takes} == set(tool.WARPS)


def test_bad_input_ends_in_one_line(tool, tmp_path, capsys):
    short, missing = tmp_path / "short.txt", tmp_path / "missing.txt"
    short.write_text("Too short.\n")
    for path, message in ((short, "no plain sentence of 4-25 words"), (missing, "can't read")):
        options = ["--sentences", str(path), "--out", str(tmp_path / "out"), "--hours", "1"]
        assert tool.main(options) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error
    with pytest.raises(SystemExit, match="2"):
        tool.main([*options, "--shares", "1", "2"])
    assert not (tmp_path / "out").exists()


def test_without_a_synthesiser_it_says_so(tool, tmp_path, monkeypatch, capsys):
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("\n".join(make_sentences("cat", 9)))
    monkeypatch.setattr(shutil, "which", lambda name: "there" if name == "opusenc" else None)
    assert tool.main(["--sentences", str(sentences), "--out", str(tmp_path), "--hours", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("left out: ") == len(tool.VOICES)
    assert "no synthesiser speaks here" in printed.err


@needs_espeak
def test_the_lowest_bitrate_keeps_what_is_above_4_khz(tool):
    take = tool.Take("She sells six fresh sea shells.", "espeak", "en-us", "m1")
    with open_audio(io.BytesIO(tool.render(take, 9)[1])) as reader:
        decoded = np.concatenate(list(reader.blocks(1 << 16)), axis=1)[0]
    spoken = tool.speak(take)
    assert len(decoded) == len(spoken)
    power = [np.abs(np.fft.rfft(x)) ** 2 for x in (spoken, decoded)]
    high = np.fft.rfftfreq(len(spoken), 1 / 16000) > 4500
    share = [10 * np.log10(x[high].sum() / x.sum()) for x in power]
    assert share[1] > share[0] - 3  # dB


@needs_espeak
def test_the_corpus_is_what_its_manifest_says_whatever_the_workers(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "VOICES", {"espeak": {"en-us": 1.0, "en-gb": 1.0}})
    monkeypatch.setattr(tool, "SHARD_BYTES", 30_000)
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("\n".join(make_sentences("cat", 99)))
    for workers in ("1", "3"):
        command = ["--sentences", str(sentences), "--out", str(tmp_path / workers)]
        assert tool.main([*command, "--hours", "0.02", "--workers", workers]) == 0
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert len(names) > 2
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    manifest = tmp_path / "1" / f"{tool.NAME}.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert sum(row["seconds"] for row in rows[:-1]) < 72 <= sum(row["seconds"] for row in rows)
    for utterance in read_manifest(manifest):
        with open_audio(utterance.open()) as reader:
            audio = np.concatenate(list(reader.blocks(1 << 16)), axis=1)
            seconds = audio.shape[1] / reader.sample_rate
        assert seconds == pytest.approx(utterance.seconds, abs=0.002)
        assert 0.4 < np.abs(audio).max() < 1.0
        assert utterance.speaker.startswith("espeak-en-")
