"""TextGrid files: intervals fill each tier, and Praat's rules hold."""

import re

from hypothesis import given
from hypothesis import strategies as st

from audiossm.textgrid import format_textgrid


def read_tiers(text: str) -> dict[str, list[tuple[float, float, str]]]:
    """Read what was written back, checking the counts on the way."""
    tiers = {}
    parts = re.split(r"^    item \[\d+\]:\n", text, flags=re.MULTILINE)[1:]
    assert f"size = {len(parts)}\nitem []:" in text
    for part in parts:
        name = re.search(r'^        name = "(.*)"$', part, flags=re.MULTILINE)
        rows = re.findall(
            r'xmin = ([\d.]+)\n +xmax = ([\d.]+)\n +text = "(.*)"$', part, flags=re.MULTILINE
        )
        assert name and f"intervals: size = {len(rows)}\n" in part
        tiers[name[1]] = [(float(a), float(b), c.replace('""', '"')) for a, b, c in rows]
    return tiers


def test_gaps_become_intervals_without_text():
    text = format_textgrid(2.0, [("words", [(0.5, 1.0, "one"), (1.0, 1.25, 'a "b"')]), ("no", [])])
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n')
    assert read_tiers(text) == {
        "words": [(0, 0.5, ""), (0.5, 1, "one"), (1, 1.25, 'a "b"'), (1.25, 2, "")],
        "no": [(0, 2, "")],
    }


def test_a_long_recording_keeps_its_milliseconds():
    text = format_textgrid(7200.123, [("words", [(7199.001, 7199.002, "late")])])
    assert (7199.001, 7199.002, "late") in read_tiers(text)["words"]


def test_an_interval_of_no_length_is_left_out():
    text = format_textgrid(1.0, [("words", [(0.5, 0.5001, "x"), (0.999, 1.3, "y"), (1.4, 2, "z")])])
    assert read_tiers(text)["words"] == [(0, 0.999, ""), (0.999, 1, "y")]


@given(st.floats(0, 20), st.lists(st.floats(0, 20), max_size=20))
def test_intervals_fill_the_recording_in_order(duration_s, edges):
    edges = sorted(edges)
    words = [(a, b, "w") for a, b in zip(edges[::2], edges[1::2], strict=False)]
    rows = read_tiers(format_textgrid(duration_s, [("words", words)]))["words"]
    assert rows[0][0] == 0 and rows[-1][1] == max(round(duration_s, 3), 0.001)
    assert all(start < end for start, end, _ in rows)
    assert all(a[1] == b[0] for a, b in zip(rows, rows[1:], strict=False))
