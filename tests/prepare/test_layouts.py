"""Folders in common layouts: what is listed of them, and how they are told apart."""

import json
from pathlib import Path

import pytest

from audiossm.errors import ManifestError
from audiossm.prepare import find_layout, read_layout

HASH = "0123456789abcdef" * 8


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def listed(folder: Path) -> list[tuple[str, ...]]:
    """Return key, place, text, speaker and fault of each recording."""
    return [
        (
            item.utterance.key,
            str(item.utterance.path.relative_to(folder)),
            item.utterance.text,
            item.utterance.speaker,
            item.fault,
        )
        for item in read_layout(folder, find_layout(folder))
    ]


def test_librispeech(tmp_path):
    lines = "19-198-0000 THE FIRST\n19-198-0001 THE SECOND\n"
    put(tmp_path, {"19/198/19-198.trans.txt": lines, "19/198/19-198-0000.flac": ""})
    assert listed(tmp_path) == [
        ("19-198-0000", "19/198/19-198-0000.flac", "THE FIRST", "libri_19", ""),
        ("19-198-0001", "19/198/19-198-0001.flac", "THE SECOND", "libri_19", "no such recording"),
    ]


def test_ljspeech(tmp_path):
    lines = "LJ001|In 1906,|In nineteen six,\nLJ002|As it is\n\nLJ003|Gone|Gone\n"
    put(tmp_path, {"metadata.csv": lines, "wavs/LJ001.wav": "", "wavs/LJ002.wav": ""})
    name = tmp_path.name
    assert listed(tmp_path) == [
        ("LJ001", "wavs/LJ001.wav", "In nineteen six,", name, ""),
        ("LJ002", "wavs/LJ002.wav", "As it is", name, ""),
        ("LJ003", "wavs/LJ003", "Gone", name, "no such recording"),
    ]
    put(tmp_path, {"metadata.csv": "no bar here\n"})
    with pytest.raises(ManifestError, match=r"metadata.csv:1: expected 'id\|text'"):
        listed(tmp_path)


def test_common_voice(tmp_path):
    rows = [
        "client_id\tpath\tsentence\tup_votes\tdown_votes",
        f'{HASH}\ta.mp3\t"Said ""so"""\t2\t0',
        "ann\tb.mp3\tDoubted\t1\t1",
    ]
    put(tmp_path, {"validated.tsv": "\n".join(rows) + "\n", "clips/a.mp3": "", "clips/b.mp3": ""})
    assert listed(tmp_path) == [
        ("a", "clips/a.mp3", 'Said "so"', "cv_0123456789abcdef", ""),
        ("b", "clips/b.mp3", "Doubted", "cv_ann", "not more up-votes than down-votes"),
    ]


def test_kaldi(tmp_path):
    files = {
        "wav.scp": "rec1 audio/one.wav\nrec2 sox two.sph -t wav - |\n",
        "segments": "u1 rec1 0.5 2.25\nu2 rec2 0 1\n",
        "text": "u1  HELLO THERE\nu2 ALSO\nu3 LOST\n",
        "utt2spk": "u1 ann\nu2 ben\n",
        "audio/one.wav": "",
    }
    put(tmp_path, files)
    first, second, third = read_layout(tmp_path, "kaldi")
    assert find_layout(tmp_path) == "kaldi"
    assert first.utterance.path == tmp_path / "audio" / "one.wav"
    assert (first.start_s, first.end_s, first.fault) == (0.5, 2.25, "")
    assert (first.utterance.text, first.utterance.speaker) == ("HELLO THERE", "ann")
    assert second.fault == "wav.scp has a command, not a file"
    assert third.fault == "no line in segments"


@pytest.mark.parametrize(
    ("segment", "end_s", "fault"),
    [
        ("rec1 0.5 -1", None, ""),  # to the end, as Kaldi has it
        ("rec1 2 0.5", None, "its segment doesn't end after it starts"),
        ("rec1 -1 2", None, "its segment doesn't end after it starts"),
        ("rec1 0.5 inf", None, "its segment doesn't end after it starts"),
        ("rec1 nan 2", None, "its segment doesn't end after it starts"),
        ("rec1 a b", None, "its line in segments isn't 'recording start end'"),
    ],
)
def test_segments_that_are_none_are_left_out(segment, end_s, fault, tmp_path):
    files = {"wav.scp": "rec1 one.wav\n", "segments": f"u1 {segment}\n", "text": "u1 HELLO\n"}
    put(tmp_path, files | {"one.wav": ""})
    (only,) = read_layout(tmp_path, "kaldi")
    assert (only.end_s, only.fault) == (end_s, fault)


def test_pairs(tmp_path):
    files = {"ann/a b.wav": "", "ann/a b.txt": "Hello\nthere\n", "c.flac": "", "c.lab": "\ufeffSo"}
    files |= {"lonely.wav": "", ".hidden/x.wav": "", "bad.wav": "", "gone.lab": "So what"}
    put(tmp_path, files)
    (tmp_path / "bad.txt").write_bytes(b"Caf\xe9")
    assert listed(tmp_path) == [
        ("ann_a_b", "ann/a b.wav", "Hello there", "ann", ""),
        ("bad", "bad.wav", "", "", "its text isn't UTF-8"),
        ("c", "c.flac", "So", "", ""),
        ("gone", "gone.lab", "", "", "no recording beside it"),
        ("lonely", "lonely.wav", "", "", "no text beside it"),
    ]


def test_pairs_whose_suffix_is_in_capitals(tmp_path):
    put(tmp_path, {"A.WAV": "", "A.txt": "Hello"})
    assert find_layout(tmp_path) == "pairs"
    assert listed(tmp_path) == [("A", "A.WAV", "Hello", "", "")]


def test_manifests(tmp_path):
    row = {"key": "a", "path": "a.wav", "text": "Hello", "speaker": "ann"}
    put(tmp_path, {"x.jsonl": json.dumps(row), "y.jsonl": json.dumps(row | {"key": "b"})})
    (tmp_path / "a.wav").touch()
    assert [row[0] for row in listed(tmp_path)] == ["a", "b"]
    assert find_layout(tmp_path / "x.jsonl") == "manifest"
    put(tmp_path, {"x.jsonl": json.dumps(row | {"key": "a/b"})})
    put(tmp_path, {"y.jsonl": json.dumps(row | {"key": "a_b"})})
    assert [row[-1] for row in listed(tmp_path)] == ["", "the key stands twice"]
    put(tmp_path, {"x.jsonl": json.dumps(row), "y.jsonl": json.dumps(row)})
    assert [row[-1] for row in listed(tmp_path)] == ["", "the key stands twice"]


def test_what_is_no_layout_is_told_in_one_line(tmp_path):
    put(tmp_path, {"a.wav": "", "song.txt": "la"})
    with pytest.raises(ManifestError, match="no layout that is known: expected librispeech"):
        find_layout(tmp_path)
    with pytest.raises(ManifestError, match="there is no such folder"):
        find_layout(tmp_path / "none")
    with pytest.raises(ManifestError, match="expected a folder or a manifest"):
        find_layout(tmp_path / "a.wav")
    with pytest.raises(ManifestError, match="layout 'timit' is not one of"):
        read_layout(tmp_path, "timit")
    with pytest.raises(ManifestError, match="nothing in it is laid out as 'librispeech'"):
        read_layout(tmp_path, "librispeech")
    with pytest.raises(ManifestError, match="wav.scp"):
        read_layout(tmp_path, "kaldi")
