"""What the README, docs/ and the recipes say works: commands parse, Python runs, links lead on."""

import re
import tomllib
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from audiossm.checkpoint import model_names
from audiossm.config import change_value, load_toml, to_dict
from audiossm.models import RecogniserConfig
from audiossm.train.settings import check_settings
from audiossm_apps.cli import make_parser
from page_commands import list_blocks, list_commands
from recipe_run import parse_only

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
RECIPES = sorted((ROOT / "recipes").glob("*/README.md"))
FOLDERS = ("apps", "audiossm", "kernels", "tests")
OTHERS = [page for name in FOLDERS for page in sorted((ROOT / name).rglob("*.md"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *RECIPES, *OTHERS]
COMMANDS = [
    pytest.param(command, id=f"{page.relative_to(ROOT)}: {' '.join(command.words)}")
    for page in PAGES
    for command in list_commands(page)
    if command.program in ("audiossm", "python", "torchrun", "pip")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = list(command.words[1:])
    match command.program:
        case "audiossm":
            make_parser().parse_args(options)
        case "pip":
            check_extras(options)
        case "torchrun":
            args = get_args_parser().parse_args(options)
            check_script([args.training_script, *args.training_script_args], monkeypatch)
        case _ if options[0] != "-m":
            check_script(options, monkeypatch)
    for word in options:
        if word.partition("/")[0] in ("assets", "docs", "kernels", "recipes", "tests"):
            assert any(ROOT.glob(word)), f"{word} isn't there"


def check_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script's parser read its options; what they set must stand in the script's config."""
    script, *options = (word.replace("[...]", '["one"]') for word in words)
    args = parse_only(ROOT / script, options, monkeypatch)
    if not getattr(args, "set", None):
        return
    table = load_toml(args.config)
    if "recogniser" not in table and getattr(args, "init", None):
        table["recogniser"] = to_dict(RecogniserConfig.tiny())  # sizes are the model's
    for change in args.set:
        change_value(table, change)
    tables = ("data", "train", "second_stage")
    check_settings(table, (ROOT / script).parent / "config.toml", [t for t in tables if t in table])


def check_extras(options: list[str]) -> None:
    """See that what pip is to install exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for names in re.findall(r"\[(.+?)\]", " ".join(options)):
        assert set(names.split(",")) <= extras.keys(), names


@pytest.mark.skipif(not model_names(), reason="no model in assets/models yet")
@pytest.mark.parametrize(
    ("page", "code"),
    [(page.name, code) for page in [PAGES[0], *DOCS] for code in list_blocks(page, "python")],
)
def test_a_python_block_runs(page, code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out.strip()
    assert told and told != "False"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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
    assert len(COMMANDS) >= 150
    recipes = {page.parent.name for page in RECIPES if list_commands(page)}
    assert recipes == {path.name for path in (ROOT / "recipes").iterdir() if path.is_dir()}
    assert len(list_blocks(ROOT / "README.md", "python")) >= 2
