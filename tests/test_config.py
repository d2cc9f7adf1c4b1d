"""Configs are strict: every key and type is checked, and what is written reads back."""

import tomllib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiossm.config import (
    change_value,
    dump_toml,
    from_dict,
    later,
    load_toml,
    tell_differences,
    to_dict,
)
from audiossm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Motor:
    power: float
    name: str = "plain"
    gears: tuple[int, ...] = (1, 2)
    limit: int | None = None
    electric: bool = later(False)


@dataclass(frozen=True, kw_only=True)
class Car:
    motor: Motor
    doors: int = 4
    open: bool = False
    spare: Motor = field(default_factory=lambda: Motor(power=1.0))

    def __post_init__(self) -> None:
        if self.doors < 0:
            raise ConfigError(f"doors is {self.doors}, must be 0 or more")


def test_tables_nest_and_defaults_fill_in():
    car = from_dict(Car, {"motor": {"power": 2.5, "gears": [3]}, "open": True})
    assert car == Car(motor=Motor(power=2.5, gears=(3,)), open=True)


def test_a_value_is_changed_where_its_key_stands():
    table = {"train": {"lr": 1.0, "names": ["a"]}, "top": 1}
    change_value(table, "train.lr=2e-3")
    change_value(table, "train.names = ['b', 'c']")
    change_value(table, "top=true")
    assert table == {"train": {"lr": 2e-3, "names": ["b", "c"]}, "top": True}


@pytest.mark.parametrize(
    "change", ["train.lr", "train.rl=1", "trian.lr=1", "top.lr=1", "top=", "top=x"]
)
def test_a_change_that_cannot_be_made_is_refused(change):
    table = {"train": {"lr": 1.0}, "top": 1}
    with pytest.raises(ConfigError, match="expected TABLE.KEY=VALUE|not valid TOML"):
        change_value(table, change)
    assert table == {"train": {"lr": 1.0}, "top": 1}


def test_two_configs_differ_in_the_keys_that_are_told_with_both_values():
    theirs = Car(motor=Motor(power=2.0, gears=tuple(range(9)), limit=3))
    ours = Car(motor=Motor(power=1.0, name="x" * 99), doors=3)
    told = tell_differences(theirs, ours)
    name = f"motor.name is 'plain' (here '{'x' * 56}...)"
    gears = "motor.gears is a list of 9 (here [1, 2])"
    limit = "motor.limit is 3 (here none)"
    assert told == f"motor.power is 2.0 (here 1.0), {name}, {gears}, {limit}, doors is 4 (here 3)"
    assert tell_differences(ours, ours) == ""


def test_an_int_serves_as_a_float():
    motor = from_dict(Motor, {"power": 2})
    assert motor.power == 2.0 and isinstance(motor.power, float)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"motor": {"powr": 1.0}},
            "unknown key car.motor.'powr'; "
            "Motor has ['electric', 'gears', 'limit', 'name', 'power']",
        ),
        (
            {"motor": {"power": 1.0}, "wheels": 4},
            "unknown key car.'wheels'; Car has ['doors', 'motor', 'open', 'spare']",
        ),
        ({}, "missing key car.'motor' of Car"),
        ({"motor": {}}, "missing key car.motor.'power' of Motor"),
        ({"motor": 5}, "car.motor is 5, expected a table"),
        ({"motor": {"power": "much"}}, "car.motor.power is 'much', expected float"),
        ({"motor": {"power": True}}, "car.motor.power is True, expected float"),
        ({"motor": {"power": 1.0, "name": 7}}, "car.motor.name is 7, expected str"),
        ({"motor": {"power": 1.0, "gears": 3}}, "car.motor.gears is 3, expected a list"),
        ({"motor": {"power": 1.0, "gears": ["a"]}}, "car.motor.gears is 'a', expected int"),
        ({"motor": {"power": 1.0, "limit": 2.5}}, "car.motor.limit is 2.5, expected int"),
        ({"motor": {"power": 1.0}, "doors": 4.0}, "car.doors is 4.0, expected int"),
        ({"motor": {"power": 1.0}, "doors": True}, "car.doors is True, expected int"),
        ({"motor": {"power": 1.0}, "open": 1}, "car.open is 1, expected bool"),
        ({"motor": {"power": 1.0}, "doors": -1}, "doors is -1, must be 0 or more"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(table, message):
    with pytest.raises(ConfigError) as caught:
        from_dict(Car, table, "car")
    assert str(caught.value) == message


def test_a_config_makes_a_trip_through_toml():
    car = Car(motor=Motor(power=1e-5, name='a "b"\\', gears=(), limit=3), doors=2, open=True)
    text = dump_toml(to_dict(car))
    assert from_dict(Car, tomllib.loads(text)) == car


def test_a_field_without_a_value_is_left_out():
    assert to_dict(Motor(power=1.0)) == {"power": 1.0, "name": "plain", "gears": [1, 2]}


def test_a_field_that_came_later_is_told_unless_it_has_its_default():
    told = to_dict(Motor(power=1.0, electric=True))
    assert told == to_dict(Motor(power=1.0)) | {"electric": True}
    assert from_dict(Motor, told).electric and not from_dict(Motor, {"power": 1.0}).electric


def test_plain_values_stand_before_tables():
    text = dump_toml({"a": {"b": {"c": 1}}, "d": 2, "e": {"f": ["x", "y"]}})
    assert text == 'd = 2\n\n[a]\n\n[a.b]\nc = 1\n\n[e]\nf = ["x", "y"]\n'


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"])),
)
keys = st.from_regex(r"[A-Za-z0-9_-]{1,9}", fullmatch=True)
tables = st.recursive(
    st.dictionaries(keys, st.one_of(values, st.lists(values, max_size=3)), max_size=4),
    lambda inner: st.dictionaries(keys, st.one_of(values, inner), max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(table=tables)
def test_any_table_makes_a_trip_through_toml(table):
    assert tomllib.loads(dump_toml(table)) == table


def test_what_toml_has_no_word_for_is_refused():
    with pytest.raises(ConfigError, match="None can't be written as TOML"):
        dump_toml({"a": None})


def test_a_file_that_is_missing_or_damaged_is_refused_with_its_name(tmp_path):
    missing, damaged, binary = (tmp_path / name for name in ("missing", "damaged", "binary"))
    damaged.write_text("a = 1\nb = \n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="missing: can't read this config"):
        load_toml(missing)
    with pytest.raises(ConfigError, match="damaged: not valid TOML: .*line 2"):
        load_toml(damaged)
    with pytest.raises(ConfigError, match="binary: not valid TOML"):
        load_toml(binary)
    with pytest.raises(ConfigError, match="can't read this config"):
        load_toml(tmp_path)
