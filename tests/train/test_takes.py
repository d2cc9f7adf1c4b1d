"""Recordings, their codes and scripts: what belongs together, who speaks, and what dev is."""

import json

import numpy as np
import pytest

from audiossm.errors import ConfigError, ManifestError
from audiossm.manifest import Utterance
from audiossm.train import takes as module
from audiossm.train.disguise import Wardrobe
from audiossm.train.takes import (
    Take,
    find_voices,
    hold_out_takes,
    load_strangers,
    load_takes,
    match_takes,
    stretch_script,
)
from audiossm.train.timed_scripts import TimedScript, write_timed_scripts
from audiossm.units import Unit


def make_takes(count: int = 12) -> list[Take]:
    rng = np.random.default_rng(0)
    takes = []
    for i in range(count):
        units = [Unit("_", 0, 0, 0), *[Unit("s", 0, 1, at) for at in range(rng.integers(2, 25))]]
        frames = tuple(int(n) for n in rng.integers(1, 6, len(units)))
        script = TimedScript(f"take-{i}", tuple(units), frames)
        codes = rng.integers(0, 1000, (sum(frames), 4)).astype(np.int16)
        takes.append(Take(Utterance(key=script.key, text="", speaker="ab"[i % 2]), script, codes))
    return takes


def test_at_another_speed_it_is_another_speaker_and_every_unit_keeps_a_frame():
    takes = make_takes(6)
    quick = {f"{t.utterance.key}@1.1": t.codes[: round(len(t.codes) / 1.1)] for t in takes}
    said = {take.utterance.key: take.script for take in takes}
    found = match_takes([take.utterance for take in takes], said, quick, 1.1)
    assert [t.utterance.speaker for t in found] == [f"{t.utterance.speaker}@1.1" for t in takes]
    for before, after in zip(takes, found, strict=True):
        assert after.utterance.key == before.utterance.key  # so dev has neither or both
        assert sum(after.script.frames) == len(after.codes) and min(after.script.frames) >= 1
        moved = np.cumsum(after.script.frames) - np.cumsum(before.script.frames) / 1.1
        assert np.abs(moved).max() <= 2
    script = TimedScript("x", takes[0].script.units[:3], (1, 7, 2))
    assert stretch_script(script, 3) == TimedScript("x", script.units, (1, 1, 1))
    assert stretch_script(script, 20) == TimedScript("x", script.units, (2, 14, 4))
    assert stretch_script(script, 2) is None


def test_who_says_little_has_no_voice():
    takes = make_takes(9)
    frames = {
        name: sum(len(t.codes) for t in takes if t.utterance.speaker == name) for name in "ab"
    }
    assert find_voices(takes, min(frames.values())) == ["a", "b"]
    assert find_voices(takes, max(frames.values())) == [max(frames, key=lambda name: frames[name])]


def test_takes_are_held_out_by_their_keys():
    takes = make_takes(200)
    train, dev = hold_out_takes(takes, 0.2)
    assert 20 < len(dev) < 60 and len(train) + len(dev) == 200
    held = {take.utterance.key for take in dev}
    again = hold_out_takes(takes[::-1][:150], 0.2)[1]
    assert {take.utterance.key for take in again} == held & {t.utterance.key for t in takes[50:]}
    with pytest.raises(ManifestError, match="dev_share 0.0 leaves 200 to train, 0 for dev"):
        hold_out_takes(takes, 0.0)


def test_only_what_has_audio_and_a_script_of_its_length_is_taken(capsys):
    takes = make_takes(4)
    utterances = [take.utterance for take in takes]
    scripts = {take.utterance.key: take.script for take in takes[1:]}
    codes = {take.utterance.key: take.codes for take in takes}
    codes["take-2"] = codes["take-2"][1:]
    assert [take.utterance.key for take in match_takes(utterances, scripts, codes)] == [
        "take-1",
        "take-3",
    ]
    told = "left out: 1 without audio or script, 1 of another length"
    assert capsys.readouterr().out.strip() == told
    with pytest.raises(ManifestError, match="no recording has a timed script of its length"):
        match_takes(utterances, {}, codes)


def test_dev_is_never_heard_in_training_at_any_speed_nor_without_a_script(tmp_path, monkeypatch):
    takes = make_takes(60)
    write_timed_scripts(tmp_path / "said.jsonl", [take.script for take in takes])
    for name, chosen in (("told", takes[:40]), ("bare", takes[40:]), ("new", takes[40:])):
        rows = [
            {"key": t.utterance.key, "text": "", "speaker": t.utterance.speaker, "path": "x.wav"}
            | ({"speaker": "c"} if name == "new" else {})
            for t in chosen
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(utterances, codec, cache, workers, device, speeds=(1.0,), wardrobe=None):
        assert wardrobe == (Wardrobe(3.0, 0.05, 0.5) if len(speeds) > 1 else None)
        whole = {take.utterance.key: take.codes for take in takes}
        return {
            module.name_at(u.key, speed): whole[u.key][: round(len(whole[u.key]) / speed)]
            for speed in speeds
            for u in utterances
        }

    monkeypatch.setattr(module, "load_codes", load)
    data = {"train": ["told"], "untold": ["bare"], "always_told": ["told"], "dev_share": 0.3}
    data |= {"scripts": "said.jsonl", "speeds": [1.0, 1.25], "untold_speeds": [1.0, 0.8]}
    data |= {"colour_db": 3.0, "throat": 0.05, "formants_follow": 0.5, "strangers": []}
    train, dev = load_takes(tmp_path, data, None, tmp_path, 1, "cpu")  # type: ignore[arg-type]
    names = [(take.utterance.key, take.utterance.speaker) for take in train]
    assert len(names) == len(set(names)) and 60 < len(names) < 110
    assert not {key for key, _ in names} & {take.utterance.key for take in dev}
    assert {take.utterance.speaker for take in dev} == {"a", "b"}
    assert all(take.has_script == take.always_told for take in train)
    for told, speed in ((True, "1.25"), (False, "0.8")):
        speakers = {take.utterance.speaker for take in train if take.has_script == told}
        assert speakers == {"a", "b", f"a@{speed}", f"b@{speed}"}
    assert all(sum(take.script.frames) == len(take.codes) for take in train)
    known = data | {"strangers": ["bare"]}
    with pytest.raises(ConfigError, match="data.strangers has 'a', who is in the training, too"):
        load_strangers(tmp_path, known, None, tmp_path, 1, "cpu")  # type: ignore[arg-type]
    assert load_strangers(tmp_path, data, None, tmp_path, 1, "cpu") == []  # type: ignore[arg-type]
    others = load_strangers(tmp_path, data | {"strangers": ["new"]}, None, tmp_path, 1, "cpu")  # type: ignore[arg-type]
    assert [take.utterance.key for take in others] == [t.utterance.key for t in takes[40:]]
    assert not any(take.has_script for take in others)
    with pytest.raises(ConfigError, match=r"data.speeds is \[0.9\], must be above 0 and have 1.0"):
        load_takes(tmp_path, data | {"speeds": [0.9]}, None, tmp_path, 1, "cpu")  # type: ignore
    with pytest.raises(ConfigError, match=r"data.untold_speeds is \[0.0\], must be above 0"):
        load_takes(tmp_path, data | {"untold_speeds": [0.0]}, None, tmp_path, 1, "cpu")  # type: ignore
