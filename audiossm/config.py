"""Configs: frozen dataclasses read from TOML, strict about every key."""

import dataclasses
import json
import tomllib
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from audiossm.errors import ConfigError

__all__ = [
    "change_value",
    "dump_toml",
    "from_dict",
    "later",
    "load_toml",
    "tell_differences",
    "to_dict",
]

C = TypeVar("C")


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a syntax error names the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: can't read this config ({exc.strerror})") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc


def change_value(table: dict[str, Any], change: str) -> None:
    """Apply ``"train.lr=1e-3"`` to the tables of a file: the key must be there, the value is TOML.

    Raises:
        ConfigError: no such key, or not a value.
    """
    path, equals, text = change.partition("=")
    *tables, key = path.strip().split(".")
    for name in tables:
        inner = table.get(name)
        table = inner if isinstance(inner, dict) else {}
    if not equals or key not in table:
        raise ConfigError(f"{change!r}: expected TABLE.KEY=VALUE with a key of the config")
    try:
        table[key] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{change!r}: the value is not valid TOML: {exc}") from exc


def from_dict(cls: type[C], data: dict[str, Any], where: str = "config") -> C:
    """Build dataclass ``cls`` from a table; tables nest, unknown and missing keys are refused."""
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ConfigError(f"unknown key {where}.{key!r}; {cls.__name__} has {sorted(fields)}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = convert(hints[name], data[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing key {where}.{name!r} of {cls.__name__}")
    return cls(**values)


def convert(hint: Any, value: Any, where: str) -> Any:
    """Check ``value`` against a field's type; ints serve as floats, lists as tuples."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return convert(options[0], value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}, expected a table")
        return from_dict(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}, expected a list")
        return tuple(convert(get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = hint if origin is None else str
    if isinstance(value, bool) is not (expected is bool) or not isinstance(value, expected):
        raise ConfigError(f"{where} is {value!r}, expected {getattr(expected, '__name__', hint)}")
    return value


def later(default: Any) -> Any:
    """Return a field that a config got after models were made: not told while it has its default.

    So those models' files, and the hashes of their sizes that graphs carry, stay what they were.
    """
    return dataclasses.field(default=default, metadata={"later": True})


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config into nested tables; what is None is left out, and ``later`` defaults are."""
    table: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("later") and value == field.default:
            continue
        if dataclasses.is_dataclass(value):
            table[field.name] = to_dict(value)
        elif value is not None:
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def tell_differences(theirs: Any, ours: Any) -> str:
    """Tell in which keys two configs of one kind differ: ``motor.power is 2.0 (here 1.0), ...``."""
    return ", ".join(find_differences(theirs, ours, ""))


def find_differences(theirs: Any, ours: Any, where: str) -> list[str]:
    """Return a text for each key that differs; ``where`` goes before its name."""
    found = []
    for name in (field.name for field in dataclasses.fields(theirs)):
        pair = getattr(theirs, name), getattr(ours, name)
        if all(map(dataclasses.is_dataclass, pair)):
            found += find_differences(*pair, f"{where}{name}.")
        elif pair[0] != pair[1]:
            there, here = map(brief, pair)
            found.append(f"{where}{name} is {there} (here {here})")
    return found


def brief(value: Any) -> str:
    """Write a config's value in few characters."""
    if value is None:
        return "none"
    if dataclasses.is_dataclass(value):
        return "a table"
    if isinstance(value, tuple):
        return str(list(value)) if len(value) <= 8 else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def dump_toml(table: dict[str, Any], prefix: str = "") -> str:
    """Write nested tables of strings, numbers, booleans and lists as TOML."""
    lines, tables = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{prefix}{key}"
            tables.append(f"\n[{name}]\n" + dump_toml(value, f"{name}."))
        else:
            lines.append(f"{key} = {toml_value(value)}\n")
    return "".join(lines + tables)


def toml_value(value: Any) -> str:
    """Write one value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for the one control character that JSON lets stand
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise ConfigError(f"{value!r} can't be written as TOML")
