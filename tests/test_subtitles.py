"""Words become cues that can be read, in files that players take."""

import random
from dataclasses import dataclass

import pytest

from audiossm.cues import Cue, CueShape, make_cues
from audiossm.subtitles import format_srt, format_vtt


@dataclass(frozen=True)
class Said:
    text: str
    start_s: float
    end_s: float


def say(text: str, start_s: float = 0.0, step_s: float = 0.3) -> list[Said]:
    return [
        Said(word, start_s + i * step_s, start_s + (i + 1) * step_s)
        for i, word in enumerate(text.split())
    ]


def lines_of(words: list[Said], shape: CueShape | None = None) -> list[tuple[str, ...]]:
    return [cue.lines for cue in make_cues(words, shape)]


def test_a_cue_ends_before_a_pause_of_eight_tenths_of_a_second():
    words = [Said("one", 0.0, 0.4), Said("two", 1.19, 1.5), Said("three", 2.3, 2.6)]
    assert list(make_cues(words)) == [
        Cue(0.0, 1.5, ("one two",)),
        Cue(2.3, 3.3, ("three",)),
    ]


@pytest.mark.parametrize(("length", "num_lines"), [(42, 2), (20, 1), (32, 3)])
def test_a_cue_has_no_more_and_no_longer_lines_than_it_may(length, num_lines):
    text = " ".join(["seven77"] * 40)
    cues = list(make_cues(say(text), CueShape(line_length=length, num_lines=num_lines)))
    assert all(len(cue.lines) <= num_lines for cue in cues)
    assert all(len(line) <= length for cue in cues for line in cue.lines)
    assert " ".join(line for cue in cues for line in cue.lines) == text


def test_a_full_cue_is_used_up_before_another_is_begun():
    assert lines_of(say(" ".join(["seven77"] * 20))) == [(" ".join(["seven77"] * 5),) * 2] * 2


def test_a_cue_lasts_at_most_seven_seconds():
    cues = list(make_cues(say(" ".join(["a"] * 40), step_s=0.5)))
    assert sorted(cue.end_s - cue.start_s for cue in cues) == [6.0, 7.0, 7.0]


def test_a_word_longer_than_a_line_stays_whole():
    long = "a" * 50
    assert lines_of(say(f"b {long}")) == [("b", long)]
    assert lines_of(say(long), CueShape(num_lines=1)) == [(long,)]


def test_a_cue_ends_with_a_sentence_rather_than_where_it_is_full():
    text = "We sat down by the river. Nobody said a word for a long time after that had happened."
    assert lines_of(say(text)) == [
        ("We sat down by the river.",),
        ("Nobody said a word for a long time", "after that had happened."),
    ]


def test_short_sentences_share_a_cue():
    assert lines_of(say("Yes. It is. I know.")) == [("Yes. It is. I know.",)]


def test_lines_break_at_clauses_and_never_behind_an_article():
    text = "I could not judge for her actions, but I believe she is right"
    assert lines_of(say(text)) == [
        ("I could not judge for her actions,", "but I believe she is right")
    ]
    # lines of nearly the same length would part "the" from "old"
    assert lines_of(say("we walked slowly along the old canal to see the boats")) == [
        ("we walked slowly along the old canal", "to see the boats")
    ]


def test_a_title_is_no_end_of_a_sentence():
    (cue, *_) = make_cues(say("There was nothing that we could do for poor Mrs. Poole."))
    assert not any(line.endswith("Mrs.") for line in cue.lines)


def test_a_quick_cue_stands_into_the_silence_behind_it_until_it_can_be_read():
    words = [*say("incomprehensibilities notwithstanding", step_s=0.3), Said("well", 5.0, 6.5)]
    first, second = make_cues(words)
    assert first.end_s == pytest.approx(37 / 20)
    assert (second.start_s, second.end_s) == (5.0, 6.5)
    first, second = make_cues([*words[:2], Said("well", 1.5, 3.0)])
    assert first.end_s == second.start_s == 1.5


def test_cues_of_any_speech_never_overlap_and_hold_every_word_in_order():
    rng = random.Random(5)
    words, now = [], 0.0
    for _ in range(600):
        now += rng.choice([0.0, 0.0, 0.1, 0.4, 1.0, 3.0])
        text = "x" * rng.randint(1, 14) + rng.choice(["", "", "", ",", "."])
        words.append(Said(text, now, now + rng.uniform(0.0, 0.6)))
        now = words[-1].end_s
    cues = list(make_cues(words))
    assert " ".join(" ".join(cue.lines) for cue in cues) == " ".join(word.text for word in words)
    for cue, follower in zip(cues, cues[1:], strict=False):
        assert cue.start_s < cue.end_s <= follower.start_s
        assert cue.end_s - cue.start_s <= 7.001
        read_s = max(1.0, sum(map(len, cue.lines)) / 20)
        assert cue.end_s - cue.start_s > read_s - 0.001 or cue.end_s == follower.start_s


def test_srt_numbers_its_cues_and_writes_milliseconds_after_a_comma():
    words = [Said("hello", 0.5, 1.9), Said("there", 3661.0015, 3662.9996)]
    assert format_srt(words) == (
        "1\n00:00:00,500 --> 00:00:01,900\nhello\n\n2\n01:01:01,002 --> 01:01:03,000\nthere\n"
    )


def test_vtt_has_a_header_and_escapes_marks():
    assert format_vtt([Said("<a&b>", 1.0, 2.0)]) == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n&lt;a&amp;b&gt;\n"
    )


def test_silence_gives_a_valid_empty_file():
    assert format_srt([]) == ""
    assert format_vtt([]) == "WEBVTT\n"


def test_a_word_without_length_is_still_shown():
    found = format_srt([Said("a", 1.0, 1.0), Said("b", 1.0, 9.0)])
    assert "00:00:01,000 --> 00:00:01,001\na\n" in found
