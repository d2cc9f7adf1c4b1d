"""A manifest is read line by line, and a wrong line is named."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from audiossm.errors import ManifestError
from audiossm.manifest import read_manifest


def write(folder: Path, *lines: object) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def write_shard(folder: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(folder / "set-00.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_a_line_with_a_path_is_relative_to_the_manifest(tmp_path):
    path = write(
        tmp_path,
        {
            "key": "a",
            "path": "b/a.wav",
            "text": "HELLO",
            "speaker": "s",
            "seconds": 2,
            "source": "x",
            "lang": "en",
            "extra": 1,
        },
        "",
        {"key": "b", "path": "/abs/b.wav", "text": ""},
    )
    first, second = read_manifest(path)
    assert first.open() == tmp_path / "b/a.wav"
    assert (first.text, first.speaker, first.seconds, first.source, first.lang) == (
        "HELLO",
        "s",
        2.0,
        "x",
        "en",
    )
    assert second.open() == Path("/abs/b.wav")
    assert (second.seconds, second.where) == (None, f"{path}:3")


def test_a_shard_gives_the_bytes_of_its_member(tmp_path):
    write_shard(tmp_path, {"b.flac": b"second", "a.opus": b"first", "a.txt": b"no audio"})
    path = write(
        tmp_path,
        {"key": "a", "shard": "set-00.tar", "text": "x"},
        {"key": "b", "shard": "set-00.tar", "text": "y"},
    )
    opened = [utterance.open() for utterance in read_manifest(path)]
    assert [file.read() for file in opened if isinstance(file, io.BytesIO)] == [b"first", b"second"]


def test_a_member_or_shard_that_is_missing_is_named_with_the_line(tmp_path):
    path = write(tmp_path, {"key": "a", "shard": "set-00.tar", "text": "x"})
    (utterance,) = read_manifest(path)
    with pytest.raises(ManifestError, match=r"set\.jsonl:1: can't read the shard .*set-00\.tar"):
        utterance.open()
    write_shard(tmp_path, {"b.opus": b""})
    with pytest.raises(ManifestError, match=r"set\.jsonl:1: set-00\.tar has no a\.opus"):
        utterance.open()


GOOD = {"key": "a", "path": "a.wav", "text": "x"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object, got list"),
        ({"path": "a.wav", "text": "x"}, "'key' must be a string, got nothing"),
        ({"key": "b", "path": "a.wav"}, "'text' must be a string, got nothing"),
        ({"key": 3, "path": "a.wav", "text": "x"}, "'key' must be a string, got 3"),
        ({"key": "b", "text": "x"}, "either 'path' or 'shard'"),
        ({"key": "b", "text": "x", "path": "p", "shard": "s"}, "either 'path' or 'shard'"),
        ({"key": "b", "text": "x", "path": "p", "seconds": "2"}, "'seconds' must be a number"),
        ({"key": "b", "text": "x", "path": "p", "seconds": 0}, "'seconds' must be a number"),
        (GOOD, "key 'a' stands at .*set.jsonl:1 too"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    with pytest.raises(ManifestError, match=rf"set\.jsonl:2: .*{message}"):
        read_manifest(write(tmp_path, GOOD, line))


def test_a_manifest_that_is_missing_empty_or_no_text_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.jsonl: can't read the manifest: No such file"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="the manifest is empty"):
        read_manifest(write(tmp_path, ""))
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="isn't UTF-8"):
        read_manifest(binary)
