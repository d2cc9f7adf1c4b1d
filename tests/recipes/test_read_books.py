"""Books become plain sentences, less those that evaluation text was read from."""

from audiossm.text import normalise_text
from recipe_run import load_recipe

books = load_recipe("lm", "read_books")

HEADER = """The Project Gutenberg EBook of A Garden, by N. N.

Title: A Garden

Language: English

*** START OF THIS PROJECT GUTENBERG EBOOK A GARDEN ***

Produced by a team of volunteers

CHAPTER I.

"""
FOOTER = "\n\nEnd of the Project Gutenberg EBook of A Garden\n\nThis file may be given away.\n"
PROSE = """Mr. Brown's garden--as he called it--had 21 roses, and it was old.
"Was it?" asked J. Smith [a guest]. It was planted in 1805, on the 3rd of May.
"""
READ_ALOUD = (
    "he went to the end of the garden and looked over the wall",
    "nobody had been on the other side of it for twenty years",
)
FILLING = "The cat sat on the mat, and the dog sat on the step of the door.\n\n"


def write_book(folder, name, *texts):
    path = folder / f"{name}.txt"
    path.write_text(HEADER + "\n\n".join(texts) + FOOTER, encoding="utf-8")
    return path


def test_a_book_becomes_plain_sentences():
    lines = books.split_sentences(HEADER + PROSE + FOOTER)
    assert lines == [
        "mister brown's garden as he called it had twenty one roses and it was old",
        "was it asked j smith",
        "it was planted in eighteen o five on the third of may",
    ]


def test_lines_are_normalised_as_transcripts_are():
    lines = ["Don’t 'go' -- née Brontë & Co.", "  'tis THE “end”'s' ", ""]
    assert books.normalise_lines("\n".join(lines)) == [normalise_text(line) for line in lines]


def test_books_read_for_evaluation_are_left_out_and_lines_that_others_share(tmp_path, capsys):
    folder, held_out, out = tmp_path / "books", tmp_path / "held.txt", tmp_path / "out.txt"
    folder.mkdir()
    held_out.write_text("\n".join(READ_ALOUD).upper(), encoding="utf-8")
    sentences = [f"The {name} bird sang in the tree." for name in ("first", "second")]
    filling = FILLING * 15
    write_book(folder, "read", sentences[0], filling, *(f"{text}." for text in READ_ALOUD))
    write_book(folder, "quotes", sentences[1], filling, f"So {READ_ALOUD[0]} and beyond.")
    write_book(folder, "skipped", "The third bird sang in the tree.", filling)
    (folder / "french.txt").write_text("Le chat est ici. " * 100, encoding="utf-8")
    (folder / "marked.txt").write_text(
        HEADER.replace("Title", "This is a copyrighted Project Gutenberg eBook\n\nTitle")
        + "The fourth bird sang in the tree.\n\n"
        + filling,
        encoding="utf-8",
    )
    argv = [str(folder), "--held-out", str(held_out), "--skip", "^skip", "--out", str(out)]
    books.main(argv)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines == [
        "the second bird sang in the tree",
        "the cat sat on the mat and the dog sat on the step of the door",
    ]
    assert "held out: read" in capsys.readouterr().out
