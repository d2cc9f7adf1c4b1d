"""A manifest is parted by speakers: as much of some, all of others, nobody in both."""

import json

import pytest

from audiossm.manifest import read_manifest
from recipe_run import load_recipe


def write(path, speakers, seconds=5.0):
    rows = [
        {"key": f"{who}-{i}", "shard": "a.tar", "text": "Hello", "speaker": who, "seconds": seconds}
        for who in speakers
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_minutes_of_some_speakers_and_all_of_others(tmp_path, capsys):
    manifest = write(tmp_path / "set.jsonl", [f"s{i}" for i in range(9)])
    options = ["--tune", "3", "--tune-minutes", "1", "--test", "4"]
    split = load_recipe("transcribe", "split_speakers").main
    split([manifest, "--out", str(tmp_path / "out"), *options])
    tune, test = (read_manifest(tmp_path / "out" / f"{name}.jsonl") for name in ("tune", "test"))
    assert [len({u.speaker for u in part}) for part in (tune, test)] == [3, 4]
    assert not {u.speaker for u in tune} & {u.speaker for u in test}
    assert len(tune) == 3 * 4 and len(test) == 4 * 12  # 20 s of each, and a minute
    assert tune[0].shard == (tmp_path / "a.tar").resolve()
    assert "tune: 1.0 min, 12 utterances, 3 speakers" in capsys.readouterr().out


def test_too_few_speakers_are_told(tmp_path, capsys):
    manifest = write(tmp_path / "set.jsonl", ["ann", "ben"])
    with pytest.raises(SystemExit):
        load_recipe("transcribe", "split_speakers").main([manifest, "--out", str(tmp_path / "o")])
    assert "has 2 speakers" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
