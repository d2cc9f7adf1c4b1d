"""Written English as it is read aloud: numbers and common abbreviations in words."""

import re

__all__ = ["cardinal", "say_numbers", "spell_number", "write_out"]

NUMBER = re.compile(r"(\d+(?:,\d{3})*)(st\b|nd\b|rd\b|th\b)?")
SHORT = {
    "Mr.": "mister",
    "Mrs.": "missus",
    "Messrs.": "messieurs",
    "Dr.": "doctor",
    "Mr ": "mister ",
    "Mrs ": "missus ",
    "Dr ": "doctor ",
    "St.": "saint",
    "Capt.": "captain",
    "Col.": "colonel",
    "Gen.": "general",
    "Prof.": "professor",
    "Rev.": "reverend",
    "Hon.": "honourable",
    "Esq.": "esquire",
    "&c.": "et cetera",
    "etc.": "et cetera",
    "i.e.": "that is",
    "e.g.": "for example",
    "viz.": "namely",
    "A.M.": "a m",
    "P.M.": "p m",
    "A.D.": "a d",
    "B.C.": "b c",
}
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def write_out(text: str) -> str:
    """Replace abbreviations such as "Mr." by what is said; only as they are usually written."""
    for short, long in SHORT.items():
        text = text.replace(short, long)
    return text


def say_numbers(text: str) -> str:
    """Replace digits, "1,812" and "12th" by words; numbers from a billion on fall away."""
    return NUMBER.sub(lambda m: f" {spell_number(m[1], bool(m[2]))} ", text)


def spell_number(digits: str, ordinal: bool) -> str:
    """Return digits as words; four of them without a comma are a year, as books have it."""
    value = int(digits.replace(",", ""))
    if value >= 10**9:
        return ""
    if len(digits) == 4 and 1100 <= value < 2000 and not ordinal:
        rest = value % 100
        words = f"{cardinal(value // 100)} "
        words += "hundred" if not rest else f"{'o ' if rest < 10 else ''}{cardinal(rest)}"
    else:
        words = cardinal(value)
    if ordinal:
        *front, last = words.split()
        last = IRREGULAR.get(last, (last[:-1] + "ie" if last.endswith("y") else last) + "th")
        words = " ".join([*front, last])
    return words


def cardinal(value: int) -> str:
    """Return a number below a billion as words."""
    for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= size:
            front = f"{cardinal(value // size)} {name}"
            return f"{front} {cardinal(value % size)}" if value % size else front
    if value >= 20:
        return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")
    return ONES[value]
