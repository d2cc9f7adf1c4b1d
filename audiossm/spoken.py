"""Written words as somebody reads them aloud: money, times, dates, units, addresses and signs.

A word is read with its neighbours in view, and what no rule is for is left as it is.
"""

import re
from collections.abc import Callable

from audiossm.aloud import cardinal, say_numbers, spell_number

__all__ = ["say_word", "waits"]

MONTHS = (
    "january february march april may june july august september october november december"
).split()
SHORT_MONTHS = {month[:3]: month for month in MONTHS} | {"sept": "september"}
SHORT = {
    **{"Ms.": "miz", "Jr.": "junior", "Sr.": "senior", "Lt.": "lieutenant", "Sgt.": "sergeant"},
    **{"Gov.": "governor", "Sen.": "senator", "Maj.": "major", "Mt.": "mount", "Ft.": "fort"},
    **{"Inc.": "incorporated", "Ltd.": "limited", "Corp.": "corporation", "Co.": "company"},
    **{"Ave.": "avenue", "Blvd.": "boulevard", "Rd.": "road", "Dept.": "department"},
    **{"vs.": "versus", "vs": "versus", "approx.": "approximately", "dept.": "department"},
    **{"Mon.": "monday", "Tue.": "tuesday", "Tues.": "tuesday", "Wed.": "wednesday"},
    **{"Thu.": "thursday", "Thurs.": "thursday", "Fri.": "friday", "w/": "with"},
    **{"Vol.": "volume", "vol.": "volume", "Fig.": "figure", "fig.": "figure", "w/o": "without"},
    **{"Ph.D.": "p h d", "Ph.D": "p h d", "C++": "c plus plus", "C#": "c sharp"},
}
MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "")}
SCALES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion"}
SCALE_WORDS = ("hundred", "thousand", "million", "billion", "trillion")
# one of them; more have an s, or are told behind the bar
UNITS = {
    **{"mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer"},
    **{"ft": "foot|feet", "mi": "mile", "yd": "yard", "lb": "pound", "lbs": "pound", "oz": "ounce"},
    **{"mg": "milligram", "g": "gram", "kg": "kilogram", "ml": "milliliter", "l": "liter"},
    **{"ms": "millisecond", "sec": "second", "min": "minute", "mins": "minute", "hr": "hour"},
    **{"hrs": "hour", "h": "hour", "s": "second", "mph": "mile an hour|miles an hour"},
    **{"km/h": "kilometer an hour|kilometers an hour", "m/s": "meter a second|meters a second"},
    **{"kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte"},
    **{"hz": "hertz|hertz", "khz": "kilohertz|kilohertz", "mhz": "megahertz|megahertz"},
    **{"ghz": "gigahertz|gigahertz", "w": "watt", "kw": "kilowatt", "kwh": "kilowatt hour"},
    **{"v": "volt", "°c": "degree celsius|degrees celsius", "°": "degree", "%": "percent|percent"},
    **{"°f": "degree fahrenheit|degrees fahrenheit", "€": "euro", "£": "pound", "$": "dollar"},
    **{"¢": "cent", "m²": "square meter", "km²": "square kilometer", "cm²": "square centimeter"},
    **{"ft²": "square foot|square feet", "m³": "cubic meter", "cm³": "cubic centimeter"},
}
# these are other words, too: only right behind a number
CLOSE_UNITS = ("m", "g", "l", "h", "s", "w", "v", "k", "min", "ms", "sec", "mi")
FRACTIONS = {"½": "one half", "¼": "one quarter", "¾": "three quarters", "⅓": "one third"}
FRACTIONS |= {"⅔": "two thirds", "⅛": "one eighth"}
ENDINGS = "com|org|net|edu|gov|info|io|co|uk|us|de|fr|eu|ai|dev|app|me|tv"
SIGNS = {".": "dot", "@": "at", "/": "slash", "-": "dash", "_": "underscore", "+": "plus"}
SIGNS |= {
    "?": "question mark",
    "=": "equals",
    "&": "and",
    "#": "hash",
    "%": "percent",
    ":": "colon",
}
ALONE = {"=": "equals", "+": "plus", "%": "percent", "@": "at", "×": "times", "÷": "divided by"}
ALONE |= {"<": "is less than", ">": "is greater than", "§": "section", "~": "about", "°": "degrees"}
ALONE |= {"≈": "is about", "≤": "is at most", "≥": "is at least", "±": "plus or minus", "→": "to"}
ROMAN = {"I": 1, "V": 5, "X": 10}
CHAPTERS = "War Chapter Part Act Scene Volume Book Section Type Phase Title Class Level".split()
YEAR_WORDS = ("in", "since", "by", "until", "till", "from", "of", "year", "before", "after")
# the smallest number that is read digit by digit, and how many digits are; and letters of a word
TOO_LARGE, MOST_DIGITS, MOST_LETTERS = 10**15, 24, 200
# what a whole is parted into, as it is said
PARTS = (2, 3, 4, 5, 6, 8, 10, 16, 32, 64, 100)

AMOUNT = r"(\d{1,3}(?:,\d{3})+|\d+)"
WORD = re.compile(r"""(["'“‘(\[]*)(.*?)((?:[.,;:!?…"'”’)\]]|—|–)*)""", re.DOTALL)
HOLDS = re.compile(
    r"""["'“‘(]*(?:[$£€¥][\d.,]*\d|[Nn]os?\.|pp?\.|St\.|\d{1,2}:00|\d{3}\)|"""
    + rf"(?:{'|'.join(month.capitalize() for month in SHORT_MONTHS)})\.?)"
)


def waits(word: str) -> bool:
    """Whether a written word can't be read before the next one is known."""
    return HOLDS.fullmatch(word) is not None


def say_word(word: str, before: str = "", after: str = "") -> str:
    """Return what is read aloud for a written word, with the marks around it.

    Args:
        word: without spaces.
        before: the one before it, as written.
        after: the one after it; only looked at if ``waits(word)``.
    """
    # what nobody writes to be read aloud
    if len(word) > MOST_LETTERS or re.search(rf"[\d,]{{{MOST_DIGITS + 1}}}", word):
        return word
    if (said := _say_short(word, before, after)) is not None:
        return said
    match = WORD.fullmatch(word)
    assert match is not None
    opening, core, closing = match.groups()
    if closing.startswith(".") and (said := _say_short(f"{core}.", before, after)) is not None:
        return f"{opening}{said}{closing[1:]}"
    for read in READERS:
        said = read(core, before, after)
        if said is not None:
            return f"{opening}{said}{closing}"
    return word


def _say_short(word: str, before: str, after: str) -> str | None:
    if word in SHORT:
        return SHORT[word]
    if word == "St." and before[:1].isupper() and not after[:1].isupper():
        return "street"  # before a name it is a saint
    if word in ("p.", "pp.") and after[:1].isdecimal():
        return "page" if word == "p." else "pages"
    if word in ("No.", "no.", "Nos.", "nos.") and after[:1].isdecimal():
        return "number" if word[2] == "." else "numbers"
    month = SHORT_MONTHS.get(word.rstrip(".").lower()) if word[:1].isupper() else None
    if month and (after[:1].isdecimal() or word.endswith(".") and before[-1:].isdecimal()):
        return month
    return None


def _say_count(digits: str) -> str:
    """Return digits with or without commas as words, however many there are."""
    plain = digits.replace(",", "")
    if len(plain) > 1 and plain[0] == "0" or int(plain[:16] or 0) >= TOO_LARGE:
        return " ".join(cardinal(int(digit)) for digit in plain)
    value = int(plain)
    if value < 10**9:
        return spell_number(digits, False)
    words = []
    for size, name in ((10**12, "trillion"), (10**9, "billion")):
        if value >= size:
            words += [cardinal(value // size), name]
            value %= size
    return " ".join(words + ([cardinal(value)] if value else []))


def _say_decimal(number: str) -> str:
    """Return ``3.14`` or ``1,200`` as words."""
    whole, point, part = number.partition(".")
    words = [_say_count(whole)] if whole else []
    if point:
        words += ["point", *(cardinal(int(digit)) for digit in part)]
    return " ".join(words)


def _inflect(unit: str, one: bool) -> str:
    single, _, many = unit.partition("|")
    return single if one else many or f"{single}s"


def _say_day(day: int) -> str:
    return spell_number(str(day), True)


def _say_year(digits: str) -> str:
    value = int(digits)
    if 2010 <= value < 2100:
        return f"twenty {cardinal(value % 100)}"
    return spell_number(digits, False)


def _read_address(core: str, before: str, after: str) -> str | None:
    mail = re.fullmatch(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", core, re.ASCII)
    web = re.fullmatch(
        rf"(?:https?://|www\.)\S+|(?:[a-z\d-]+\.)+(?:{ENDINGS})(?:/\S*)?", core, re.I | re.A
    )
    if not (mail or web):
        return None
    words = []
    for part in re.findall(r"[A-Za-z]+|\d+|\S", re.sub(r"^https?://|/$", "", core)):
        if part.lower() in ("www", "io", "fr", "eu", "us", "tv"):
            words += list(part.lower())
        else:
            words.append(_say_count(part) if part.isdecimal() else SIGNS.get(part, part))
    return " ".join(words)


def _read_money(core: str, before: str, after: str) -> str | None:
    match = re.fullmatch(rf"([-−]?)([$£€¥]){AMOUNT}?(?:\.(\d+))?(k|m|mn|bn|b)?", core, re.I)
    if match is None or not (match[3] or match[4]):
        return None
    minus, sign, whole, cents, scale = match.groups(default="")
    whole = whole or "0"
    one, small = MONEY[sign]
    words = ["minus"] if minus else []
    if scale or after.strip(".,;:!?").lower() in SCALE_WORDS:
        words.append(_say_decimal(f"{whole}.{cents}" if cents else whole))
        if scale:
            words += [SCALES[scale.lower()], one if one == "yen" else f"{one}s"]
        return " ".join(words)
    value = int(whole.replace(",", ""))
    if cents and (len(cents) != 2 or not small):
        return " ".join([*words, _say_decimal(f"{whole}.{cents}"), f"{one}s"])
    count = int(cents or 0)
    if value or not count:
        words += [_say_count(whole), one if value == 1 or one == "yen" else f"{one}s"]
    if value and count:
        words.append("and")
    if count:
        many = "pence" if small == "penny" else f"{small}s"
        words += [cardinal(count), small if count == 1 else many]
    return " ".join(words)


def _read_scale(core: str, before: str, after: str) -> str | None:
    """Read the "million" of "$5 million"."""
    match = re.match(r"[\"'“‘(-]*([$£€¥])\d", before)
    if match is None or core.lower() not in SCALE_WORDS:
        return None
    one = MONEY[match[1]][0]
    return f"{core} {one if one == 'yen' else one + 's'}"


def _read_time(core: str, before: str, after: str) -> str | None:
    match = re.fullmatch(r"(\d{1,2})(?::(\d\d)(?::(\d\d))?)?(?:([AaPp])\.?[Mm]\.?)?", core)
    if match is None or not (match[2] or match[4]) or int(match[1]) > 24:
        return None
    hour, minute, second, half = match.groups()
    words = [cardinal(int(hour))]
    if minute and int(minute) > 59:
        return None
    if minute and minute != "00":
        words.append(f"o {cardinal(int(minute))}" if minute[0] == "0" else cardinal(int(minute)))
    elif minute and not half and after.lower().strip(",.;:!?") not in HALVES:
        words.append("o'clock" if 0 < int(hour) <= 12 and not second else "hundred")
    if second:
        words.append(f"and {cardinal(int(second))} seconds")
    return " ".join(words + ([f"{half.lower()} m"] if half else []))


HALVES = ("am", "pm", "a.m", "p.m")


def _read_half(core: str, before: str, after: str) -> str | None:
    """Read the "am" of "10 am", which is no word there."""
    if core.lower() in HALVES and before[-1:].isdecimal():
        return f"{core[0].lower()} m"
    return None


def _read_date(core: str, before: str, after: str) -> str | None:
    if match := re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", core):
        year, month, day = match.groups()
    elif match := re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", core):
        day, month, year = match.groups()
    elif match := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})", core):
        month, day, year = match.groups()
        if int(month) > 12:
            month, day = day, month
    else:
        return None
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    return f"{MONTHS[int(month) - 1]} {_say_day(int(day))} {_say_year(year)}"


def _read_year(core: str, before: str, after: str) -> str | None:
    """Read the "2024" of "in 2024"; earlier years are read so everywhere."""
    is_year = re.fullmatch(r"20[1-9]\d", core) and (
        before.lower() in YEAR_WORDS
        or before.rstrip(".,").lower() in MONTHS
        or re.fullmatch(r"\d{1,2}(?:st|nd|rd|th)?,", before)
    )
    return _say_year(core) if is_year else None


def _read_day(core: str, before: str, after: str) -> str | None:
    """Read the "5" of "January 5"."""
    month = before.rstrip(".").lower()
    if not re.fullmatch(r"\d{1,2}", core) or not 1 <= int(core) <= 31 or not before[:1].isupper():
        return None
    return _say_day(int(core)) if month in MONTHS or month in SHORT_MONTHS else None


def _read_decade(core: str, before: str, after: str) -> str | None:
    match = re.fullmatch(r"['’]?(1[1-9]|20)?(\d)0['’]?s", core)
    if match is None or (match[2] == "0" and match[1] is None):
        return None
    century, ten = match.groups()
    if ten == "0":
        return "two thousands" if century == "20" else f"{cardinal(int(century))} hundreds"
    tens = "tens" if ten == "1" else f"{cardinal(int(ten) * 10)[:-1]}ies"
    return f"{cardinal(int(century))} {tens}" if century else tens


def _read_digits(core: str, before: str, after: str) -> str | None:
    """Read telephone numbers, versions and what begins with zeros digit by digit."""
    if re.fullmatch(r"\+?(?:\d{1,3}[-.])?(?:\d{3}[-.])?\d{3}-\d{4}|\(\d{3}\)\d{3}-\d{4}", core) or (
        re.fullmatch(r"\d{3}", core) and re.match(r"\d{3}-\d{4}(?!\d)", after)
    ):
        said = [cardinal(int(char)) for char in core if char.isdecimal()]
        return " ".join(["plus", *said] if core[0] == "+" else said)
    if re.fullmatch(r"v?\d+(?:\.\d+){2,}", core):
        version = " point ".join(_say_count(part) for part in core.lstrip("v").split("."))
        return f"version {version}" if core[0] == "v" else version
    if re.fullmatch(r"0\d+|\d{10,}", core):
        return _say_count(core)
    return None


def _read_range(core: str, before: str, after: str) -> str | None:
    match = re.fullmatch(rf"{AMOUNT}([-–—:]){AMOUNT}(%?)", core)
    if match is None:
        return None
    first, sign, second, percent = match.groups()
    to = "to" if sign != ":" or int(first.replace(",", "")) < 100 else ""
    said = f"{_say_count(first)} {to} {_say_count(second)}"
    return f"{said} percent" if percent else said


def _read_fraction(core: str, before: str, after: str) -> str | None:
    if match := re.fullmatch(r"(\d+)?([½¼¾⅓⅔⅛])", core):
        part = FRACTIONS[match[2]]
        if match[1] is None:
            return part
        return f"{_say_count(match[1])} and {part.replace('one ', 'a ')}"
    match = re.fullmatch(r"(\d{1,2})/(\d{1,3})", core)
    if match is None or int(match[2]) not in PARTS or int(match[1]) >= int(match[2]):
        return None
    top, bottom = int(match[1]), int(match[2])
    name = {2: "half", 4: "quarter"}.get(bottom) or spell_number(str(bottom), True)
    many = "halves" if bottom == 2 else f"{name}s"
    return f"{cardinal(top)} {name if top == 1 else many}"


def _read_measure(core: str, before: str, after: str) -> str | None:
    if match := re.fullmatch(r"(\d)['′](\d{1,2})(?:[\"″])?", core):
        return f"{cardinal(int(match[1]))} foot {cardinal(int(match[2]))}"
    match = re.fullmatch(rf"([-−~+]?)({AMOUNT}?(?:\.\d+)?)[-]?([A-Za-z°%€£$¢²³/]*)", core)
    if match is None or not match[2]:
        return None
    sign, number, _, unit = match.groups()
    before_it = {"": "", "~": "about ", "+": "plus "}.get(sign, "minus ")
    if unit == "":
        plain = number.replace(",", "")
        if not sign and plain.isdecimal() and int(plain) < 10**9:
            return None  # as ever
        return before_it + _say_decimal(number)
    if unit in ("M", "B", "bn"):
        return f"{before_it}{_say_decimal(number)} {SCALES[unit.lower()]}"
    if unit.lower() not in UNITS or (len(unit) == 1 and unit.isupper() and unit not in "WVL"):
        return None  # such as 5G
    return f"{before_it}{_say_decimal(number)} {_inflect(UNITS[unit.lower()], number == '1')}"


def _read_unit(core: str, before: str, after: str) -> str | None:
    """Read the "kg" of "1 kg"."""
    unit = UNITS.get(core.lower())
    if unit is None or not re.fullmatch(r"[-−~+(]*[\d.,]*\d", before):
        return None
    if core.lower() in CLOSE_UNITS and core not in ("m", "g", "l", "min", "ms", "sec"):
        return None
    return _inflect(unit, before.lstrip("(") == "1")


def _read_roman(core: str, before: str, after: str) -> str | None:
    if not re.fullmatch(r"X{0,2}(?:IX|IV|V?I{0,3})", core) or len(core) < 2:
        return None
    value = 0
    for char, follows in zip(core, [*core[1:], "I"], strict=True):
        value += ROMAN[char] if ROMAN[char] >= ROMAN[follows] else -ROMAN[char]
    if before in CHAPTERS:
        return cardinal(value)
    return f"the {spell_number(str(value), True)}" if before[:1].isupper() else None


def _read_sign(core: str, before: str, after: str) -> str | None:
    if core in ALONE:
        return ALONE[core]
    if match := re.fullmatch(r"#(\d+)", core):
        return f"number {_say_count(match[1])}"
    if match := re.fullmatch(r"([A-Za-z]+|[\d.,]*\d)([²³])", core):
        return f"{match[1]} {'squared' if match[2] == '²' else 'cubed'}"
    if match := re.fullmatch(r"#([A-Za-z]\w*)", core, re.ASCII):
        return f"hashtag {say_numbers(match[1])}"
    if re.fullmatch(r"\d+(?:\.\d+)?[x×]\d+(?:\.\d+)?", core):
        return " by ".join(_say_decimal(part) for part in re.split("[x×]", core))
    if re.fullmatch(r"\d+(?:[+*×÷=]\d+)+", core):
        names = SIGNS | ALONE | {"*": "times"}
        return " ".join(
            _say_count(part) if part.isdecimal() else names[part]
            for part in re.findall(r"\d+|\D", core)
        )
    return None


READERS: tuple[Callable[[str, str, str], str | None], ...] = (
    *(
        _read_address,
        _read_money,
        _read_scale,
        _read_half,
        _read_time,
        _read_date,
        _read_day,
        _read_year,
    ),
    *(_read_decade, _read_digits, _read_range, _read_fraction, _read_unit, _read_measure),
    *(_read_roman, _read_sign),
)
