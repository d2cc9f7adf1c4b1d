"""Files, folders and patterns on a command line, and the files that results go to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiossm.errors import OutputError
from audiossm_apps.inputs import Input, find_inputs, name_targets

FILES = (
    "talks/b.mp3",
    "talks/a.WAV",
    "talks/notes.txt",
    "talks/.hidden.wav",
    "talks/.cache/x.wav",
    "talks/day 1/c.flac",
    "talks/day 1/a.wav",
    "talks/day 1/film.mp4",
    "talks/day 1/samples.raw",
    "other[1].wav",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(*names: str, **options: bool) -> list[str]:
    return [item.source.replace(os.sep, "/") for item in find_inputs(names, **options)[0]]


@pytest.fixture
def without_media(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


def test_a_folder_is_searched_with_all_below_it_in_order(without_media):
    found = ["talks/a.WAV", "talks/b.mp3", "talks/day 1/a.wav", "talks/day 1/c.flac"]
    assert find("talks") == find("talks/") == found
    raw = find("talks", with_raw=True)
    assert raw == [*found, "talks/day 1/samples.raw"]


def test_what_needs_an_extra_is_left_out_with_a_line_that_names_it(without_media):
    (Path("talks") / "x.m4a").touch()
    inputs, lines = find_inputs(["talks"])
    assert not any(item.source.endswith(("mp4", "m4a")) for item in inputs)
    assert lines == [
        "2 files (m4a, mp4) are left out: PyAV, which reads them, is missing: "
        "pip install 'audiossm[media]'"
    ]


def test_with_the_extra_films_are_found():
    pytest.importorskip("av")
    inputs, lines = find_inputs(["talks"])
    assert Path("talks/day 1/film.mp4") in [Path(item.source) for item in inputs]
    assert lines == []


def test_files_are_taken_as_they_are_named():
    assert find("talks/notes.txt", "-", "nowhere.wav") == ["talks/notes.txt", "-", "nowhere.wav"]


def test_a_pattern_that_the_shell_left_alone_is_expanded(without_media):
    assert find("talks/*.mp3") == ["talks/b.mp3"]
    assert find("talks/*") == ["talks/a.WAV", "talks/b.mp3"]
    assert find("talks/**/*.wav") == ["talks/day 1/a.wav"]
    assert find("*/day ?/[ac].*") == ["talks/day 1/a.wav", "talks/day 1/c.flac"]
    assert find("tal*") == find("talks")
    assert find("other[1].wav") == ["other[1].wav"]  # a file of that name comes first
    assert find("*.nothing") == ["*.nothing"]


def test_each_recording_is_taken_once():
    assert find("talks/b.mp3", "talks/*.mp3", "talks/../talks/b.mp3") == ["talks/b.mp3"]


def test_a_folder_without_audio_is_a_problem():
    Path("empty").mkdir()
    assert find_inputs(["empty"])[0] == [
        Input("empty", Path("empty"), "there is no audio in this folder")
    ]


def places(inputs: list[str], output_dir: str | None) -> list[str]:
    targets = name_targets(find_inputs(inputs)[0], "srt", output_dir)
    return [str(target).replace(os.sep, "/") for _, target in targets]


def test_results_go_beside_recordings_or_into_a_folder_that_mirrors_theirs(without_media):
    assert places(["talks", "other[1].wav"], None) == [
        "talks/a.srt",
        "talks/b.srt",
        "talks/day 1/a.srt",
        "talks/day 1/c.srt",
        "other[1].srt",
    ]
    found = ["out/a.srt", "out/b.srt", "out/day 1/a.srt", "out/day 1/c.srt"]
    assert places(["talks"], "out") == found
    assert places(["talks/day 1/a.wav"], "out") == ["out/a.srt"]
    assert places(["talks/**/*.flac"], "out") == ["out/day 1/c.srt"]


def test_two_results_in_one_file_are_refused():
    Path("talks/b.wav").touch()
    with pytest.raises(OutputError) as caught:
        places(["talks"], None)
    assert str(caught.value) == (
        f"{Path('talks/b.mp3')} and {Path('talks/b.wav')} would both be written to "
        f"{Path('talks/b.srt')}: transcribe them in two runs, into two folders (--output-dir)"
    )
    with pytest.raises(OutputError, match="would both be written to"):
        places(["talks/a.WAV", "talks/day 1/a.wav"], "out")


def test_a_result_never_goes_over_an_input():
    Path("talks/a.srt").touch()
    with pytest.raises(OutputError, match=r"a\.srt: is an input"):
        places(["talks/a.WAV", "talks/a.srt"], None)


def test_suffixes_are_replaced_and_dots_in_names_kept():
    assert places(["v1.2.talk.mp3", "nosuffix"], "out") == ["out/v1.2.talk.srt", "out/nosuffix.srt"]


def test_nothing_heavy_is_loaded_where_all_is_done_already(folder):
    """A folder that is transcribed every hour, or whose work others do."""
    recording, result = folder / "talks" / "b.mp3", folder / "talks" / "b.txt"
    result.touch()
    os.utime(recording, (1, 1))
    code = (
        "import sys\n"
        "from audiossm_apps.cli import main\n"
        f"assert main(['transcribe', {str(recording)!r}, '--beside']) == 0\n"
        "assert not {'torch', 'numpy', 'soundfile', 'av'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "b.txt is newer than the recording: skipped" in done.stderr
