"""What pydantic found wrong, as sentences that name the key, what is allowed and what was given."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fedsparse.registry import nearest
from fedsparse.settings import shown

_WORDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
_SIMPLE = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def sentences(
    error: ValidationError,
    model: type[BaseModel],
    table: Mapping[str, Any],
    prefix: str = "",
    beside: Sequence[str] = (),
) -> list[str]:
    """One sentence for each wrong key.

    `table` is what was validated, `prefix` stands before its keys ("strategy."), `beside` are more keys allowed there.
    """
    found: dict[str, str] = {}
    for item in error.errors(include_url=False):
        path, field, inside = _walk(model, item["loc"])
        key = prefix + ".".join(path) if path else prefix.rstrip(".")
        # A union reports each of its members, a list each of its items: one sentence says it.
        if item["type"] == "extra_forbidden":
            sentence = unknown(key, [*(beside if inside is model else ()), *inside.model_fields])
        else:
            sentence = _sentence(item, key, field, _value(table, path))
        found.setdefault(key, sentence)
    return list(found.values())


def unknown(key: str, allowed: Sequence[str]) -> str:
    """The sentence on a key that does not exist; `allowed` are the keys that do, at the same place."""
    return f'There is no key "{key}"{nearest(key.rpartition(".")[2], allowed)}; allowed: {", ".join(allowed)}.'


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], FieldInfo | None, type[BaseModel]]:
    """The keys of `loc` down to the field it is about, that field, and the model that has it."""
    path: list[str] = []
    field: FieldInfo | None = None
    inside: type[BaseModel] = model
    remaining = list(map(str, loc))
    while remaining:
        path.append(remaining.pop(0))
        field = inside.model_fields.get(path[-1])
        if field is None:
            break
        annotation: Any = field.annotation
        if get_origin(annotation) is dict and remaining:
            path.append(remaining.pop(0))
            annotation = get_args(annotation)[1]
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        inside = annotation
    return path, field, inside


def _value(table: Any, path: list[str]) -> Any:
    for key in path:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def _sentence(item: Any, key: str, field: FieldInfo | None, value: Any) -> str:
    kind = item["type"]
    if kind == "missing":
        return f"{key} is required: {describe(field.annotation, field.metadata) if field else 'it has no default'}."
    if kind == "value_error":
        text = str(item["ctx"]["error"]).rstrip(".")
        return f"{key} {text}." if text.startswith("must ") else f"{key}: {text}." if key else f"{text}."
    if field is None:
        return f"{key or 'The experiment'} must be a table, not {_short(value)}."
    return f"{key} must be {describe(field.annotation, field.metadata)}, not {_short(value)}."


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a type allows, in words: "a number greater than 0 and at most 1"."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(args[0], [m for a in args[1:] for m in (a.metadata if isinstance(a, FieldInfo) else [a])])
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(map(shown, args))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args if arg is not type(None))
    if annotation in _SIMPLE:
        return _SIMPLE[annotation] + _bounds(metadata)
    base = origin or annotation
    if isinstance(base, type) and issubclass(base, list | tuple | set | frozenset):
        return f"a list, each item {describe(args[0])}" if args and args[0] is not Any else "a list"
    return "a table"


def _bounds(metadata: Sequence[Any]) -> str:
    parts = [
        f"{_WORDS[name]} {getattr(m, name):g}"
        for m in metadata
        for name in _WORDS
        if isinstance(getattr(m, name, None), int | float)
    ]
    text = " and ".join(parts)
    return f" of {text}" if text.startswith("at ") else f" {text}" if text else ""


def _short(value: Any) -> str:
    text = "nothing" if value is None else shown(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
