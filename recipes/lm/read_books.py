"""Turn books into plain sentences, a line each, without those that hold evaluation text.

python recipes/lm/read_books.py FOLDER ... --held-out FILE ... --out books.txt

Books are .txt files in Project Gutenberg's form; its header and licence are cut off, and books
marked as copyrighted or in another language are left out.
"""

import argparse
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audiossm.aloud import say_numbers, write_out
from audiossm.manifest import read_manifest
from audiossm.text import normalise_text
from audiossm_apps.recipe import run_recipe

RUN = 8  # words in a row that no sentence may share with evaluation text
UTTERANCES = 2  # held-out ones a book may not share a run with: it was read for them
MIN_WORDS, MIN_ENGLISH = 200, 0.02  # of a book, and its share of "the"

START = re.compile(r"\*\*\*? ?START OF TH(?:IS|E) PROJECT GUTENBERG[^\n]*\n")
SMALL_PRINT = re.compile(r"\*END\*? ?THE SMALL PRINT[^\n]*\n")
END = re.compile(r"\n[^\n]{0,40}\bEND OF (?:TH(?:IS|E) )?PROJECT GUTENBERG", re.IGNORECASE)
LANGUAGE = re.compile(r"^Language:\s*(.*)$", re.MULTILINE)
COPYRIGHTED = re.compile(r"copyrighted Project Gutenberg|COPYRIGHT PROTECTED", re.IGNORECASE)
NOTE = re.compile(r"\[[^\]]{0,600}\]")
ABOUT_FILE = re.compile(r"gutenberg|e-?text|proofread|transcriber|produced by", re.IGNORECASE)
SENTENCE_END = re.compile(r"""(?<=[.!?])(?<!\b[A-Z]\.)["'”’)\]]*\s+(?=["'“‘(]*[A-Z])""")
POUNDS = re.compile(r"£ ?(\d[\d,]*)")


def main(argv: list[str] | None = None) -> None:
    """Read books, drop what was held out and what was there before, write the rest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--held-out", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--skip", default="(?!)", help="titles (file names) to leave out, a regex")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    runs = hold_out(text for path in args.held_out for text in read_texts(path))
    skip = re.compile(args.skip, re.IGNORECASE)
    paths = sorted(path for folder in args.folders for path in folder.rglob("*.txt"))
    chosen = [path for path in paths if not skip.search(path.stem)]
    seen: set[int] = set()
    num_books = num_lines = num_words = num_read_aloud = 0
    with args.out.open("w", encoding="utf-8") as file:
        for path in chosen:
            book = read_book(path, runs)
            if book.is_held_out:
                num_read_aloud += 1
                print(f"held out: {book.name}")
            fresh = []
            for line in book.lines:
                key = hash(line)
                if key not in seen:
                    seen.add(key)
                    fresh.append(line)
            if fresh:
                num_books += 1
                num_lines += len(fresh)
                num_words += sum(line.count(" ") + 1 for line in fresh)
                file.write("\n".join(fresh) + "\n")
    print(
        f"{args.out}: {num_books} books, {num_lines} sentences, {num_words} words; of "
        f"{len(paths)} files {len(paths) - len(chosen)} skipped by title, {num_read_aloud} held out"
    )


def read_texts(path: Path) -> Iterator[str]:
    """Yield a manifest's transcripts, or a text's lines."""
    if path.suffix == ".jsonl":
        yield from (utterance.text for utterance in read_manifest(path))
    else:
        yield from path.read_text(encoding="utf-8").splitlines()


def hold_out(texts: Iterable[str]) -> dict[str, int]:
    """Return every run of ``RUN`` words, or a whole shorter text, and which text it is of."""
    found = {}
    for i, text in enumerate(texts):
        words = normalise_text(text).split()
        for at in range(max(len(words) - RUN, 0) + 1):
            found[" ".join(words[at : at + RUN])] = i
    return found


@dataclass(frozen=True)
class Book:
    """The sentences of a book; none if it was held out."""

    name: str
    lines: list[str]
    is_held_out: bool = False


def read_book(path: Path, runs: dict[str, int]) -> Book:
    """Return a book's sentences, less those that share a run with held-out text."""
    lines: list[str] = []
    found: set[int] = set()
    num_words = num_the = 0
    for line in split_sentences(decode(path.read_bytes())):
        words = line.split()
        num_words += len(words)
        num_the += words.count("the")
        own = [" ".join(words[at : at + RUN]) for at in range(max(len(words) - RUN, 0) + 1)]
        if words and runs.keys().isdisjoint(own):
            lines.append(line)
        elif len(words) >= RUN:
            found.update(runs[run] for run in own if run in runs)
    if len(found) >= UTTERANCES:
        return Book(path.stem, [], is_held_out=True)
    if num_words < MIN_WORDS or num_the < MIN_ENGLISH * num_words:
        return Book(path.stem, [])
    return Book(path.stem, lines)


def decode(data: bytes) -> str:
    """Decode a text file, most of which are UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a book in Project Gutenberg's form as plain words.

    Numbers and common abbreviations become words. Headings, notes and what is said of the file
    itself are left out, and so is a book that is copyrighted or not in English.
    """
    start = START.search(text) or SMALL_PRINT.search(text)
    header = text[: start.end()] if start else ""
    language = LANGUAGE.search(header)
    if COPYRIGHTED.search(header) or (language and "English" not in language[1]):
        return []
    text = text[len(header) :]
    if end := END.search(text):
        text = text[: end.start()]
    text = write_out(text)
    text = POUNDS.sub(r"\1 pounds", text)
    kept = []
    for paragraph in re.split(r"\n\s*\n", NOTE.sub(" ", text)):
        if is_prose(paragraph):
            kept.extend(SENTENCE_END.split(" ".join(paragraph.split())))
    text = "\n".join(kept)
    text = say_numbers(text)
    return normalise_lines(text)


def is_prose(paragraph: str) -> bool:
    """Tell sentences from headings, tables and what is said of the file."""
    words = re.findall(r"[A-Za-z]+|\d+", paragraph)
    small = sum(word.islower() for word in words)
    ended = paragraph.rstrip(" \n\"'”’)_*")[-1:] in (*".!?:;,-—",)
    return (
        2 * small > len(words)
        and (ended or small > 12)
        and (len(words) > 150 or not ABOUT_FILE.search(paragraph))
    )


def normalise_lines(text: str) -> list[str]:
    """Do what ``normalise_text`` does, for many lines at once."""
    for sign in "’‘`´ʼ":
        text = text.replace(sign, "'")
    text = text.replace("&", " and ")
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = re.sub(r"[\u0300-\u036f]", "", text)
    text = re.sub(r"[^a-z'\n]+", " ", text.lower())
    lines = ([word.strip("'") for word in line.split()] for line in text.split("\n"))
    return [" ".join(word for word in line if word) for line in lines]


if __name__ == "__main__":
    sys.exit(run_recipe(main, resumes=False))
