"""What the README and docs/ say works: their Python runs, their commands parse, links lead on."""

import re
import shlex
from pathlib import Path

import pytest

from audiossm.checkpoint import model_names
from audiossm_apps.cli import make_parser

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]


def list_blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def list_commands() -> list[list[str]]:
    commands = []
    for page in PAGES:
        text = "".join(list_blocks(page, "sh")).replace("\\\n", " ")
        for line in text.splitlines():
            for part in line.split("&&"):
                words = shlex.split(part.partition(" < ")[0], comments=True)
                if words and Path(words[0]).name in ("audiossm", "python"):
                    commands.append([Path(words[0]).name, *words[1:]])
    return commands


@pytest.mark.parametrize("words", list_commands(), ids=" ".join)
def test_a_command_parses(words):
    name, *options = words
    if name == "audiossm":
        make_parser().parse_args(options)
    elif options[0] != "-m":
        code = (ROOT / options[0]).read_text(encoding="utf-8")
        for option in options[1:]:
            assert not option.startswith("--") or f'"{option}"' in code, f"{option} is unknown"


@pytest.mark.skipif(not model_names(), reason="no model in assets/models yet")
@pytest.mark.parametrize(
    ("page", "code"),
    [(page.name, code) for page in PAGES for code in list_blocks(page, "python")],
)
def test_a_python_block_runs(page, code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out.strip()
    assert told and told != "False"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_on(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_the_diagram_shows_who_imports_whom():
    (diagram,) = list_blocks(ROOT / "docs" / "architecture.md", "mermaid")
    places = dict(re.findall(r'^ *(\w+)\["(.+?)<br>', diagram, flags=re.MULTILINE))
    arrows = re.findall(r"^ *(\w+) --> (\w+)$", diagram, flags=re.MULTILINE)
    assert len(arrows) > 10 and {end for arrow in arrows for end in arrow} == places.keys()
    for upper, lower in arrows:
        module = places[lower].removeprefix("kernels/").replace("/", ".")
        code = "".join(path.read_text() for path in sorted((ROOT / places[upper]).rglob("*.py")))
        assert re.search(rf"(from|import) {module}\b", code), f"{upper} doesn't import {lower}"


def test_there_are_commands_and_python_blocks():
    assert len(list_commands()) >= 10
    assert len(list_blocks(ROOT / "README.md", "python")) >= 2
