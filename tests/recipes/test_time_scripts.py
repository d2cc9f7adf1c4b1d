"""Timed scripts of recordings: whole, where the sounds are, and without what isn't said there."""

import json
from pathlib import Path

import numpy as np
import pytest

from audiossm.audio import open_audio
from audiossm.manifest import read_manifest
from audiossm.train.timed_scripts import read_timed_scripts
from recipe_run import load_recipe

SPEECH = Path(__file__).parents[1] / "speech"
CLIPS = ("bread", "kettle", "museum", "river")


@pytest.fixture
def manifest(tmp_path) -> Path:
    texts = {u.key: u.text for u in read_manifest(SPEECH / "manifest.jsonl")}
    rows = [{"key": key, "path": f"{SPEECH / key}.flac", "text": texts[key]} for key in CLIPS]
    rows += [
        rows[0] | {"key": "digits", "text": "Please buy 2 loaves of bread."},
        rows[0] | {"key": "another's", "text": texts["garden"]},
        rows[0] | {"key": "too-long", "text": " ".join(texts.values())},
    ]
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measure_level(key: str, frames: int) -> np.ndarray:
    """Return the power of each frame of 20 ms, in dB."""
    with open_audio(SPEECH / f"{key}.flac") as reader:
        assert reader.sample_rate == 16000
        audio = np.concatenate(list(reader.blocks(1 << 20)), axis=1)[0]
    assert len(audio) // 320 == frames
    return 10 * np.log10(np.square(audio[: 320 * frames]).reshape(-1, 320).mean(1) + 1e-9)


def test_the_units_of_recordings_lie_where_their_sounds_are(manifest, capsys):
    out = manifest.with_name("timed.jsonl")
    recipe = load_recipe("generate", "time_scripts")
    recipe.main(
        ["said", "--data", str(manifest.parent), "--out", str(out), "--device", "cpu"]
        + ["--hops", "20000"]
    )
    printed = capsys.readouterr().out
    assert "left out, digits: 1" in printed
    assert "left out, too short for their texts: 1" in printed
    assert "left out, other words than heard: 1" in printed
    scripts = {script.key: script for script in read_timed_scripts(out)}
    assert sorted(scripts) == sorted(CLIPS)
    vowels: list[int] = []
    for utterance in read_manifest(manifest)[: len(CLIPS)]:
        script = scripts[utterance.key]
        words = [unit for unit in script.units if unit.place & recipe.ENDS]
        assert len(words) == len(utterance.text.split())
        levels = measure_level(utterance.key, sum(script.frames))
        parts = np.split(levels, np.cumsum(script.frames)[:-1])
        long = [p for p, unit in zip(parts, script.units, strict=True) if unit.is_pause]
        pauses = np.concatenate([part[1:-1] for part in long])
        stressed = [p for p, unit in zip(parts, script.units, strict=True) if unit.stress == 2]
        assert np.median(pauses) < np.median(np.concatenate(stressed)) - 30
        vowels += map(len, stressed)
    assert 3 <= np.median(vowels) <= 8  # 60 to 160 ms
