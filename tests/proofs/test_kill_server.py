"""A dead server costs no word: the proof itself, with a tiny model and two kills."""

import importlib.util
import sys
from pathlib import Path

import pytest

from redis_server import why_no_redis

FOLDER = Path(__file__).parent


@pytest.fixture
def kill_server(monkeypatch):
    spec = importlib.util.spec_from_file_location("kill_server", FOLDER / "kill_server.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill_server", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [
        [],
        pytest.param(
            ["--servers", "2", "--store", "redis", "--drain", "--rewind", "--clients", "1"],
            marks=pytest.mark.skipif(bool(why_no_redis()), reason=why_no_redis()),
        ),
    ],
)
def test_no_word_is_lost_when_servers_are_killed(kill_server, capsys, options):
    argv = ["--tiny", "--kills", "2", "--clients", "2", "--speed", "2"]
    assert kill_server.main([*argv, *options]) == 0, capsys.readouterr().out
