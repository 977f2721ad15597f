"""An experiment as plain tables: read from TOML, changed by dotted keys, written back as canonical TOML."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedsparse import registry
from fedsparse.errors import InputError

Table = dict[str, Any]

# The tables that name a plug-in: the registry's kind, and the name where none is written.
PLUGS = {"dataset": "datasets", "partition": "partitions", "model": "models", "strategy": "strategies"}
DEFAULT_NAMES = {"partition": "dirichlet", "strategy": "fedavg"}
# Keys beside a plug-in's own options: they stay when the name changes.
COMMON = {"partition": ("validation", "test")}

# Keys of a partition and of devices that are paths: taken from the config's folder; what a file holds is what counts.
PATHS = ("file", "csv", "trace")

_BARE = re.compile(r"[A-Za-z0-9_-]+")


# ---- reading ----


def read(source: str | Path | Mapping[str, Any]) -> Table:
    """The tables of a path, the bare name of a shipped config, TOML text (of more than one line) or a dictionary."""
    if isinstance(source, Mapping):
        return normal(source)
    if isinstance(source, str) and "\n" in source:
        return normal(_parse(source, "the text"))
    path = locate(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not TOML: it is not UTF-8 text.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return normal(_parse(text, str(path)), path.absolute().parent)


def locate(source: str | Path) -> Path:
    """The file of a config: a path that exists, or the bare name of a shipped config."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    bare = isinstance(source, str) and bool(_BARE.fullmatch(source))
    if bare and (source in registry.names("configs") or not path.exists()):
        found: Path = registry.find("configs", str(source))
        return found
    if path.is_dir():
        inside = path / "config.toml"
        hint = f"; it holds {inside}" if inside.is_file() else ""
        raise InputError(f"{path} is a folder where a config is expected{hint}.")
    raise InputError(f"There is no config file {path}; the shipped ones are {', '.join(registry.names('configs'))}.")


def _parse(text: str, where: str) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}.") from error


def parse_sets(sets: Iterable[str]) -> Table:
    """The changes of `--set KEY=VALUE` strings: dotted keys, values in TOML syntax, bare words are strings."""
    changes: Table = {}
    for text in sets:
        key, equals, value = text.partition("=")
        try:
            if not equals or "\n" in key:
                raise ValueError
            path = _path(tomllib.loads(f"{key}=0"))
        except ValueError as error:  # a TOMLDecodeError is one
            raise InputError(f'A setting must be KEY=VALUE, such as strategy.density=0.1, not "{text}".') from error
        changes = merge(changes, normal(_nest(path, _value(key, value.strip()))), drop=False)
    return changes


def _path(table: Table) -> list[str]:
    keys = []
    while isinstance(table, dict):
        ((key, table),) = table.items()
        keys.append(key)
    return keys


def _value(key: str, text: str) -> Any:
    try:
        table = tomllib.loads(f"v = {text}")
        if set(table) == {"v"}:
            return table["v"]
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise InputError(f"The value of {key.strip()} is not TOML: {text}.") from error
    # Not TOML, but what people type.
    return float(text) if re.fullmatch(r"[+-]?\.[0-9]+", text) else text


# ---- changing ----


def normal(table: Mapping[str, Any], folder: Path | None = None) -> Table:
    """The same with dotted keys as tables, `strategy = "x"` as `strategy.name` and plug-ins' files as absolute paths.

    A relative file is looked for in `folder` first (the config's own), then in the working directory.
    """
    result: Table = {}
    for key, value in table.items():
        first, dot, rest = str(key).partition(".")
        result = merge(result, {first: _normal(first, {rest: value} if dot else value, folder)}, drop=False)
    return result


def _normal(key: str, value: Any, folder: Path | None) -> Any:
    folders = () if folder is None else (folder,)
    if (key in PLUGS or key == "runtime") and isinstance(value, str):
        value = {"name": value}
    if key in PLUGS and isinstance(value, Mapping) and isinstance(value.get("name"), str):
        value = dict(value) | {"name": registry.absolute(value["name"], *folders)}
    if key == "partition" and isinstance(value, Mapping):
        value = _with_places(value, *folders)
    if key == "devices" and isinstance(value, Mapping):
        tiers = normal(value, folder)
        return {k: _with_places(v, *folders) if isinstance(v, Mapping) else v for k, v in tiers.items()}
    if key == "strategies" and isinstance(value, list | tuple):
        return [registry.absolute(v, *folders) if isinstance(v, str) else v for v in value]
    if key == "variants" and isinstance(value, Mapping):
        # Labels may hold dots: they are no paths.
        return {label: normal(v, folder) if isinstance(v, Mapping) else v for label, v in value.items()}
    return normal(value, folder) if isinstance(value, Mapping) else value


def _with_places(table: Mapping[str, Any], *folders: Path) -> Table:
    return dict(table) | {k: _placed(v, *folders) for k, v in table.items() if k in PATHS and isinstance(v, str) and v}


def _placed(path: str, *folders: Path) -> str:
    """A path, absolute in the first of `folders` that has it or where we are; as it is where nothing has it."""
    found = [place for folder in (*folders, Path()) if (place := folder / Path(path).expanduser()).exists()]
    return str(found[0].absolute()) if found else path


def contents(table: Table) -> Table:
    """The paths of a partition's or a tier's table as what their files hold, which moving a file does not change."""
    files = {key: Path(value) for key, value in table.items() if key in PATHS}
    return {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items() if path.is_file()}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any], drop: bool = True, where: str = "") -> Table:
    """`base` with `changes`, both normal: None removes a key, and a plug-in's new name drops the old one's options.

    Without `drop` both are changes still, whose None and new names are for later.
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if value is None and drop:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            if drop and key in PLUGS and value.get("name", _name(key, old)) != _name(key, old):
                old = {k: v for k, v in old.items() if k in COMMON.get(key, ())}
            result[key] = merge(old, value, drop, f"{where}{key}.")
        elif isinstance(value, Mapping):
            result[key] = merge({}, value, drop, f"{where}{key}.")
        elif isinstance(old, Mapping):
            raise InputError(f"{where}{key} must be a table, not {shown(value)}.")
        else:
            result[key] = value
    return result


def _name(key: str, table: Mapping[str, Any]) -> Any:
    return table.get("name", DEFAULT_NAMES.get(key))


def _nest(path: list[str], value: Any) -> Table:
    for key in reversed(path):
        value = {key: value}
    return value


# ---- writing ----


def flat(table: Mapping[str, Any], prefix: str = "") -> Table:
    """Nested tables as one table of dotted keys."""
    result: Table = {}
    for key, value in table.items():
        dotted = f"{prefix}{_key(key)}"
        result |= flat(value, f"{dotted}.") if isinstance(value, Mapping) and value else {dotted: value}
    return result


def emit(table: Mapping[str, Any], prefix: str = "") -> str:
    """Canonical TOML: single values first, then a section for each table, in the order given."""
    lines = [f"{_key(k)} = {shown(v)}" for k, v in table.items() if not isinstance(v, Mapping)]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in table.items():
        if isinstance(value, Mapping):
            header = f"{prefix}{_key(key)}"
            body = emit(value, f"{header}.")
            # A table of tables needs no header of its own.
            text += ("\n" if text else "") + (body if body.startswith("[") else f"[{header}]\n{body}")
    return text


def shown(value: Any) -> str:
    """A value in TOML's syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(v) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(k)} = {shown(v)}' for k, v in value.items())}}}"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    # 2500000.0 reads better as 2.5e6.
    mantissa, e, exponent = f"{value:g}".partition("e")
    short = f"{mantissa}e{int(exponent)}" if e else ""
    return short if short and float(short) == value else repr(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else shown(key)
