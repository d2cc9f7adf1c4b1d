"""Words become cues that can be read, in files that players take."""

from dataclasses import dataclass

from audiossm.subtitles import format_srt, format_vtt, make_cues


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


def test_a_cue_ends_before_a_pause_of_eight_tenths_of_a_second():
    words = [Said("one", 0.0, 0.4), Said("two", 1.19, 1.5), Said("three", 2.3, 2.6)]
    cues = list(make_cues(words))
    assert [(cue.start_s, cue.end_s, cue.lines) for cue in cues] == [
        (0.0, 1.5, ("one two",)),
        (2.3, 2.6, ("three",)),
    ]


def test_a_cue_has_at_most_two_lines_of_42_characters():
    text = " ".join(["seven77"] * 40)
    cues = list(make_cues(say(text, step_s=0.1)))
    assert all(len(cue.lines) <= 2 for cue in cues)
    assert all(len(line) <= 42 for cue in cues for line in cue.lines)
    assert cues[0].lines == (" ".join(["seven77"] * 5),) * 2
    assert " ".join(line for cue in cues for line in cue.lines) == text


def test_a_cue_lasts_at_most_seven_seconds():
    cues = list(make_cues(say(" ".join(["a"] * 40), step_s=0.5)))
    assert [cue.end_s - cue.start_s for cue in cues] == [7.0, 7.0, 6.0]


def test_a_word_longer_than_a_line_stays_whole():
    long = "a" * 50
    (cue,) = make_cues(say(f"b {long}"))
    assert cue.lines == ("b", long)


def test_srt_numbers_its_cues_and_writes_milliseconds_after_a_comma():
    words = [Said("hello", 0.5, 0.9), Said("there", 3661.0015, 3661.9996)]
    assert format_srt(words) == (
        "1\n00:00:00,500 --> 00:00:00,900\nhello\n\n2\n01:01:01,002 --> 01:01:02,000\nthere\n"
    )


def test_vtt_has_a_header_and_escapes_marks():
    assert format_vtt([Said("<a&b>", 1.0, 2.0)]) == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n&lt;a&amp;b&gt;\n"
    )


def test_silence_gives_a_valid_empty_file():
    assert format_srt([]) == ""
    assert format_vtt([]) == "WEBVTT\n"


def test_a_word_without_length_is_still_shown():
    assert "00:00:01,000 --> 00:00:01,001" in format_srt([Said("a", 1.0, 1.0)])
