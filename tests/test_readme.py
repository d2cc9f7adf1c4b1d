"""What the README says works: its Python runs, its commands parse."""

import re
import shlex
from pathlib import Path

import pytest

from audiossm.checkpoint import model_names
from audiossm_apps.cli import make_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def list_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def list_commands() -> list[list[str]]:
    commands = []
    for line in "".join(list_blocks("sh")).splitlines():
        for part in line.split("&&"):
            words = shlex.split(part.partition(" < ")[0], comments=True)
            if words and Path(words[0]).name == "audiossm":
                commands.append(words[1:])
    return commands


@pytest.mark.parametrize("words", list_commands(), ids=" ".join)
def test_a_command_parses(words):
    make_parser().parse_args(words)


@pytest.mark.skipif(not model_names(), reason="no model in assets/models yet")
@pytest.mark.parametrize("code", list_blocks("python"))
def test_a_python_block_runs(code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_there_are_commands_and_python_blocks():
    assert len(list_commands()) >= 10
    assert len(list_blocks("python")) >= 2
