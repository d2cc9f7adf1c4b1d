"""What is said of Ray on the command line, where it isn't installed or isn't of use."""

import sys
from pathlib import Path

import pytest

from audiossm_apps.cli import main

SPEECH = Path(__file__).parents[1] / "speech"


def test_without_the_package_a_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["transcribe", str(SPEECH / "kettle.flac"), "--ray", "--output-dir", str(tmp_path)]
    serve = ["serve", "--replicas", "2", "--store", str(tmp_path)]
    for words in (command, serve):
        assert main(words) == 1
        told = capsys.readouterr().err
        assert "pip install 'audiossm[ray]'" in told and told.count("\n") == 1


def test_what_replicas_would_not_find_is_told_before_they_start(tmp_path, capsys):
    serve = ["serve", "--replicas", "2", "--store", str(tmp_path)]
    assert main([*serve, "--model", "nowhere"]) == 1
    assert "no model 'nowhere'" in capsys.readouterr().err
    assert main([*serve, "--keys", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["transcribe", "-", "--ray"], "leave out --output-dir, --jobs and --ray"),
        (["transcribe", "a.wav", "--ray", "--follow"], "--follow is about one file"),
        (["transcribe", "a.wav", "--ray-address", "x:1"], "--ray-address needs --ray"),
        (["serve", "--ray-address", "x:1"], "--ray-address needs --replicas"),
        (["serve", "--replicas", "2"], "--replicas need a --store that all of them reach"),
        (["serve", "--replicas", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_options_that_say_nothing_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
