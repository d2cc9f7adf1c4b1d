"""A folder becomes shards, manifests, phones and a report; what is bad is listed, never fatal."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from audiossm.audio import write_audio
from audiossm.errors import AlignmentError, ManifestError
from audiossm.manifest import Utterance, read_manifest
from audiossm.prepare import Recording, prepare
from audiossm.prepare.folder import choose_dev
from audiossm_apps.cli import main
from tiny_model import SPEECH

OUTPUTS = ("train.jsonl", "dev.jsonl", "phones.json", "data.toml", "report.json", "left-out.jsonl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The test recordings as pairs of four speakers, with a broken, a silent and a double one."""
    out = tmp_path / "mine"
    rows = [json.loads(line) for line in (SPEECH / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        place = out / f"speaker{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(SPEECH / row["path"], place)
        (place / f"{row['key']}.txt").write_text(row["text"])
    first = out / "speaker0" / "river"
    shutil.copy(first.with_suffix(".flac"), out / "again.flac")
    shutil.copy(first.with_suffix(".txt"), out / "again.txt")
    whole = first.with_suffix(".flac").read_bytes()
    (out / "broken.flac").write_bytes(whole[: len(whole) // 2])
    (out / "broken.txt").write_text("This one ends too soon.")
    write_audio(out / "quiet.wav", np.zeros((1, 16000), np.float32), 16000)
    (out / "quiet.txt").write_text("Nobody says it.")
    (out / "wordless.wav").write_bytes(b"")
    return out


def read_faults(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "left-out.jsonl").read_text().splitlines()]
    return {row["key"]: row["fault"] for row in rows}


def test_good_recordings_are_packed_and_bad_ones_listed(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["prepare", str(folder), "-o", str(out), "--workers", "1", "--dev", "0.2"]) == 0
    printed = capsys.readouterr()
    assert "4 of " in printed.out and "text doesn't fit" not in printed.out
    assert "audiossm" not in printed.err
    assert read_faults(out) == {
        "speaker0_river": "duplicate",  # again.flac comes first
        "broken": "can't be read (to its end)",
        "quiet": "silent",
        "wordless": "no text beside it",
    }
    train, dev = (read_manifest(out / f"{name}.jsonl") for name in ("train", "dev"))
    assert all(u.shard and u.open().read(4) == b"fLaC" for u in [*train, *dev])
    assert {u.source for u in train} == {"mine"}
    phones = json.loads((out / "phones.json").read_text())
    assert set(phones["phones"]) == {u.key for u in [*train, *dev]}
    assert len(phones["symbols"]) == 62 and all(phones["phones"].values())
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] == len(train) + len(dev) and report["left_out"]["silent"] == 1
    assert {"hz": 16000, "channels": 1, "files": 10} in report["rates"]
    assert report["outside_alphabet"] == {}
    table = (out / "report.md").read_text()
    assert "| characters a second |" in table
    assert main(["prepare", str(folder), "-o", str(out)]) == 1
    assert "holds prepared data already: choose another folder" in capsys.readouterr().err


def test_two_runs_give_the_same_bytes_whatever_the_workers(folder, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    for workers, out in enumerate(outs, 1):
        prepare(folder, out, workers=workers, phones=False, coding="opus")
    names = {path.name for path in outs[0].iterdir()}
    assert "train-00.tar" in names
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name


def recordings(speakers: dict[str, int]) -> list[Recording]:
    return [
        Recording(Utterance(key=f"{who}{i}", text="ten letter", speaker=who))
        for who, count in speakers.items()
        for i in range(count)
    ]


def test_dev_is_whole_speakers_where_two_are_known():
    speakers = {f"s{i}": 10 for i in range(20)}
    dev = choose_dev(recordings(speakers), 0.1)
    assert len(dev) == 20 and len({key[:-1] for key in dev}) == 2
    for known in ({"one": 50}, {"": 50}):
        assert len(choose_dev(recordings(known), 0.1)) == 5
    assert len(choose_dev(recordings({"": 2}), 0.01)) == 1
    assert choose_dev(recordings({"": 1}), 0.5) == set()
    assert choose_dev(recordings(speakers), 0) == set()
    # whoever says nearly all is for training, whatever the hashes of the names
    for one, other in (("ann", "ben"), ("ben", "ann"), ("s1", "s2"), ("s2", "s1")):
        assert choose_dev(recordings({one: 99, other: 1}), 0.05) == {f"{other}0"}
    # nor does what nobody knows the speaker of part speakers
    assert {key[:2] for key in choose_dev(recordings(speakers | {"": 5}), 0.05)} < {*speakers}
    assert len(choose_dev(recordings({"ann": 1, "ben": 1, "": 98}), 0.05)) == 5


def test_manifests_that_are_not_prepared_are_never_overwritten(folder, tmp_path, capsys):
    row = {"key": "a", "path": "speaker0/river.flac", "text": "What is said"}
    (folder / "train.jsonl").write_text(json.dumps(row))
    assert main(["prepare", str(folder), "-o", str(folder), "--workers", "1"]) == 1
    assert "has a train.jsonl that isn't prepared: choose another" in capsys.readouterr().err
    assert json.loads((folder / "train.jsonl").read_text()) == row
    # but what a run left that was stopped
    (tmp_path / "out").mkdir()
    for name in ("train.jsonl", "left-out.jsonl"):
        (tmp_path / "out" / name).write_text("{")
    command = ["prepare", str(folder), "-o", str(tmp_path / "out"), "--layout", "pairs"]
    assert main([*command, "--workers", "1"]) == 0
    assert len(read_manifest(tmp_path / "out" / "train.jsonl")) > 1


def test_texts_that_an_aligner_refuses_are_left_out(folder, tmp_path):
    def align(data, text):
        assert data.read(4) == b"fLaC"
        if "bridge" in text:
            raise AlignmentError("the audio is too short for its text")
        return SimpleNamespace(misfit=5.6 if "bread" in text else 0.7, fits="bread" not in text)

    prepare(folder, tmp_path / "out", phones=False, aligner=align)
    faults = read_faults(tmp_path / "out")
    assert [key for key, fault in faults.items() if fault == "text doesn't fit: words"] == [
        "again",
        "speaker1_bread",
    ]


def test_held_out_texts_and_speakers_stay_out(folder, tmp_path):
    row = {"key": "x", "path": "x.wav", "text": "It is held out", "speaker": "speaker2"}
    (tmp_path / "held.jsonl").write_text(json.dumps(row))
    prepare(folder, tmp_path / "out", phones=False, held_out=[tmp_path / "held.jsonl"])
    faults = read_faults(tmp_path / "out")
    assert {key for key, fault in faults.items() if fault == "held-out speaker"} == {
        key for key in faults if key.startswith("speaker2")
    }
    assert sum(fault == "held-out speaker" for fault in faults.values()) >= 2


def test_numbers_are_written_out_if_that_is_asked_for(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("river", "bread"):
        shutil.copy(SPEECH / f"{name}.flac", folder)
        (folder / f"{name}.txt").write_text("There were 30 boats on the wide old river that day.")
    with pytest.raises(ManifestError, match=r"was left out: digits in the text \(2"):
        prepare(folder, tmp_path / "out")
    prepare(folder, tmp_path / "out", numbers=True, phones=False, dev_share=0.5)
    (said,) = read_manifest(tmp_path / "out" / "train.jsonl")
    assert said.text == "There were thirty boats on the wide old river that day."


def test_a_manifest_with_shards_and_odd_keys_is_packed_anew(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("river", "bread"):
        data = (SPEECH / f"{name}.flac").read_bytes()
        with tarfile.open(folder / "a.tar", "a") as archive:
            member = tarfile.TarInfo(f"{name} one.flac")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    text = "The river was high after a week of rain, so we walked home over the bridge."
    rows = [{"key": f"{name} one", "shard": "a.tar", "text": text} for name in ("river", "bread")]
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(folder, tmp_path / "out", phones=False, dev_share=0)
    packed = read_manifest(tmp_path / "out" / "train.jsonl")
    assert [u.key for u in packed] == ["river_one", "bread_one"]
    assert all(u.open().read(4) == b"fLaC" for u in packed)
    assert 'dev = ["train"]' in (tmp_path / "out" / "data.toml").read_text()


def test_a_wrong_share_is_refused(folder, tmp_path):
    with pytest.raises(ManifestError, match="share of dev is 1"):
        prepare(folder, tmp_path / "out", dev_share=1)
