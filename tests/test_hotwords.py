"""Hot words are plain phrases with a weight, and their file says which line is wrong."""

import pytest

from audiossm.errors import HotwordError
from audiossm.hotwords import MAX_PHRASES, HotWord, check_hotwords, read_hotwords


def test_phrases_are_reduced_to_plain_letters_and_sorted():
    found = check_hotwords(["Zürich", "New  York", "o’Brien", "well-read"])
    assert [word.phrase for word in found] == ["new york", "o'brien", "well read", "zurich"]
    assert {word.weight for word in found} == {1.0}


def test_of_two_alike_the_heavier_one_stays():
    words = [HotWord("Kettle", 2), "kettle", HotWord("KETTLE", 0.5)]
    assert check_hotwords(words) == (HotWord("kettle", 2.0),)


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("top 10", "'top 10' has '1': write it as it is said"),
        ("straße", "'straße' has 'ß'"),
        ("Москва", "has 'М'"),
        ("x²", "has '²'"),
        ("--", "'--' has no letters"),
        ("", "'' has no letters"),
        ("a" * 101, "has 101 letters: at most 100"),
    ],
)
def test_what_cannot_be_written_is_refused(phrase, message):
    with pytest.raises(HotwordError, match=message):
        check_hotwords([phrase])


@pytest.mark.parametrize("weight", [0, -1, 11, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(HotwordError, match="must be above 0 and at most 10"):
        HotWord("kettle", weight)


def test_a_text_is_no_list_and_too_many_are_refused():
    with pytest.raises(HotwordError, match="a list of phrases, got the text 'kettle'"):
        check_hotwords("kettle")
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = (a + b + c for a in letters for b in letters for c in letters)
    assert len(letters) ** 3 > MAX_PHRASES
    with pytest.raises(HotwordError, match=f"at most {MAX_PHRASES}"):
        check_hotwords(many)


def test_a_file_has_a_phrase_a_line_and_perhaps_a_weight(tmp_path):
    path = tmp_path / "hot.txt"
    path.write_text("\ufeffnew york\t2.5\r\n\n# names\nAnna\n", encoding="utf-8")
    assert read_hotwords(path) == (HotWord("anna"), HotWord("new york", 2.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anna\nroom 5\n", r"hot\.txt:2: hot word 'room 5' has '5'"),
        ("anna\theavy\n", r"hot\.txt:1: weight 'heavy' after 'anna' is not a number"),
        ("\n\nanna\t0\n", r"hot\.txt:3: hot word 'anna' has the weight 0"),
        ("anna\t1\t2\n", r"hot\.txt:1: weight '1\\t2' after 'anna'"),
        ("# nobody\n\n", r"hot\.txt: no hot words in it"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "hot.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HotwordError, match=message):
        read_hotwords(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(HotwordError, match="none.txt: can't read the hot words: No such file"):
        read_hotwords(tmp_path / "none.txt")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HotwordError, match="bytes: not a list of hot words"):
        read_hotwords(tmp_path / "bytes")
