"""The commands that a page shows in its ``sh`` blocks, as a shell would read them."""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)
VARIABLE = re.compile(r"\$(\w+)")


class Command(NamedTuple):
    """One command: what it is given to read in its environment, and its words."""

    environment: Mapping[str, str]
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """Its name, without the folder of a virtual environment."""
        return Path(self.words[0]).name


def list_blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a language, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def list_commands(page: Path) -> list[Command]:
    """Return a page's commands; variables that it sets hold for all that follows on it.

    Lines that end with a backslash go on, comments and what is read from a file by ``<`` are left
    out, and ``a && b`` and ``a; b`` are two commands. Of a loop only the first turn is read.
    """
    found, variables = [], dict[str, str]()
    for line in "".join(list_blocks(page, "sh")).replace("\\\n", " ").splitlines():
        for part in part_line(line):
            words = list(expand(part, variables))
            given = {}
            match words:
                case ["for", name, "in", first, *_]:
                    given, words = {name: first}, []
                case ["do" | "done", *words]:
                    pass
            while words and (match := ASSIGNMENT.fullmatch(words[0])):
                given[match[1]] = match[2]
                del words[0]
            if words:
                found.append(Command(given, tuple(words)))
            else:
                variables |= given
    return found


def part_line(line: str) -> list[list[str]]:
    """Return the words of each command in a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    reads = False
    for word in lexer:
        if set(word) <= set(";&|"):
            parts.append([])
        elif set(word) <= set("<>"):
            reads = True
            continue
        elif not reads:
            parts[-1].append(word)
        reads = False
    return parts


def expand(words: Iterable[str], variables: Mapping[str, str]) -> Iterable[str]:
    """Yield words with variables filled in; one that is nothing else may become several."""
    for word in words:
        filled = VARIABLE.sub(lambda match: variables.get(match[1], match[0]), word)
        yield from shlex.split(filled) if VARIABLE.fullmatch(word) else [filled]
