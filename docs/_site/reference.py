"""Pages that are made from code: what is registered, its docstrings, and the fields that are options."""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import typer

import fedsparse
from fedsparse import cli, registry
from fedsparse.experiment import Experiment
from fedsparse.options import Options
from fedsparse.sections import Choice
from fedsparse.settings import DEFAULT_NAMES

_FIELD = r"^(\w+): +"
WIDE = 70
"""Characters that fit a line of code."""
TITLES = {"datasets": "Data sets", "models": "Models", "partitions": "Partitions", "sparsifiers": "Sparsifiers"}

# ---- strategies ----


def strategies() -> str:
    """The page that lists every strategy."""
    rows = [(f"[`{name}`]({name}.md)", registry.summary("strategies", name)) for name in registry.names("strategies")]
    return _page(
        "Strategies",
        "A strategy is one file, with the server's and the client's half of a method. `fedsparse list strategies` "
        "prints this list. [How to add one](../contributing.md).",
        _table(("strategy", "what"), rows),
    )


def strategy(name: str) -> str:
    """The page of one strategy: its docstring, its options, a command, its source."""
    cls = registry.find("strategies", name)
    module = sys.modules[cls.__module__]
    first = next((f" --set strategy.{key}={_toml(value)}" for key, value in _defaults(cls).items()), "")
    command = f"fedsparse run quickstart --set strategy={name}{first}"
    return _page(
        f"`{name}`",
        _prose(inspect.getdoc(module) or inspect.getdoc(cls) or ""),
        "## Options",
        "In a config they stand in `[strategy]`, on the command line as `--set strategy.NAME=VALUE`.",
        _options(cls),
        "## Try it",
        f"```bash\n{command}\n```",
        "One run on scikit-learn's digits; with one process in place of Ray's workers, add `--runtime local`. "
        "Against FedAvg, with every option at its default:",
        f"```bash\nfedsparse compare quickstart --strategies fedavg{'' if name == 'fedavg' else ',' + name}\n```",
        "## Source",
        _source(module),
    )


# ---- other plug-ins ----


def plugs(kind: str) -> str:
    """The page of a kind of plug-in: all of them, each with its options."""
    found = {name: registry.find(kind, name) for name in registry.names(kind)}
    rows = [(f"[`{name}`](#{name})", registry.summary(kind, name)) for name in found]
    return _page(
        TITLES[kind],
        f"`fedsparse list {kind}` prints this list. [How to add one](../contributing.md).",
        _table((registry.SINGULAR[kind], "what"), rows),
        *(part for name, one in found.items() for part in _plug(kind, name, one)),
    )


def _plug(kind: str, name: str, found: Any) -> list[str]:
    module = sys.modules[found.__module__]
    text = inspect.getdoc(module if kind == "datasets" else found) or ""
    parts = [f"## `{name}` {{ #{name} }}", _prose(text)]
    if kind == "sparsifiers":
        return [*parts, f"```python\n{name}.score{_signature(found)}\n```"]
    return [*parts, _options(found)]


# ---- config ----


def config() -> str:
    """The page of every key of a config."""
    fields = Experiment.model_fields
    plain = [name for name, field in fields.items() if not _is_table(field.annotation)]
    parts = ["## At the top { #top }", _options(Experiment, plain)]
    for name, field in fields.items():
        if name in plain:
            continue
        cls = _table_of(field.annotation)
        parts += [f"## `{'[devices.NAME]' if name == 'devices' else f'[{name}]'}` {{ #{name} }}"]
        parts += [_prose(inspect.getdoc(cls) or "")]
        named = {"name": DEFAULT_NAMES[name]} if name in DEFAULT_NAMES else {}
        parts += [_options(cls, [key for key in cls.model_fields if key != "options"], **named)]
        if issubclass(cls, Choice):
            page = "../strategies/index.md" if cls.kind == "strategies" else f"{cls.kind}.md"
            parts += [f"The options of what is named stand beside `name`: [{cls.kind}]({page})."]
    return _page(
        "Keys of a config",
        "A config is a TOML file that holds what differs from these defaults. `fedsparse show config CONFIG` prints it "
        "whole. Any key is changed on the command line with `--set`, such as `--set train.lr=0.1`, and in Python with "
        'a keyword, such as `train={"lr": 0.1}`. An unknown key or a value out of range is refused before anything '
        "starts.",
        *parts,
    )


def configs() -> str:
    """The page of the shipped configs."""
    parts = []
    for name in registry.names("configs"):
        text = registry.find("configs", name).read_text(encoding="utf-8")
        parts += [
            f"## `{name}` {{ #{name} }}",
            registry.summary("configs", name),
            _folded(f"{name}.toml", "toml", text),
        ]
    return _page("Configs", "Each is started by its bare name: `fedsparse compare quickstart`.", *parts)


def _is_table(annotation: Any) -> bool:
    return annotation in (_table_of(annotation), dict[str, _table_of(annotation)])


def _table_of(annotation: Any) -> Any:
    """The class of a config's table, of `[devices.NAME]` too; None for a plain key."""
    inner = get_args(annotation)[-1] if get_origin(annotation) is dict else annotation
    return inner if isinstance(inner, type) and issubclass(inner, Options) else None


# ---- commands and Python ----


def commands() -> str:
    """The page of the command line."""
    group: Any = typer.main.get_command(cli.app)
    parts = []
    for name, command in group.commands.items():
        context = click.Context(command, info_name=f"fedsparse {name}")
        arguments = [one.make_metavar(context) for one in command.params if isinstance(one, click.Argument)]
        options = filter(None, (one.get_help_record(context) for one in command.params))
        rows = [(f"`{left}`", right) for left, right in options if left.startswith("-")]
        parts += [f"## `{' '.join(['fedsparse', name, *arguments])}` {{ #{name} }}", _prose(command.help or "")]
        parts += [_table(("option", "what"), rows)]
    return _page(
        "Commands",
        "Results go to standard output, progress and warnings to standard error. Exit codes: 0 done, 1 a run failed, "
        "2 bad input and nothing was written, 130 interrupted.",
        *parts,
    )


def python() -> str:
    """The page of the public names."""
    names = [name for name in fedsparse.__all__ if not name.startswith("__")]
    parts = []
    for name in sorted(names, key=lambda name: not inspect.isfunction(getattr(fedsparse, name))):
        found = getattr(fedsparse, name)
        signature = _signature(found) if inspect.isfunction(found) else ""
        parts += [f"## `{name}` {{ #{name.lower()} }}"]
        parts += [f"```python\nfedsparse.{name}{signature}\n```"] if signature else []
        parts += [_prose(inspect.getdoc(found) or "")]
        if inspect.isclass(found) and found.__module__ == "fedsparse.results":
            parts += [_table(("attribute", "what"), _attributes(found))]
    return _page("Python", "What `import fedsparse` offers. [Examples](../python.md).", *parts)


def _attributes(cls: type) -> list[tuple[str, str]]:
    """Public attributes and methods of a class with their docstrings' first paragraph."""
    found = [(name, value, inspect.getdoc(value)) for name, value in vars(cls).items() if not name.startswith("_")]
    rows = []
    for name, value, text in found:
        called = re.sub(r"\(self(, )?", "(", _signature(value)).partition(" ->")[0] if inspect.isfunction(value) else ""
        rows.append((f"`{name}{called}`", " ".join((text or "").partition("\n\n")[0].split())))
    return rows


def _signature(function: Any) -> str:
    """As it is called, an argument a line where it is long."""
    text = str(inspect.signature(function)).replace("'", "")
    if len(text) <= WIDE:
        return text
    inside, _, returned = text[1:].rpartition(")")
    arguments = re.split(r", (?![^\[(]*[\])])", inside)  # at commas outside brackets
    return "(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returned}"


# ---- options ----


def _options(cls: type[Options], only: Iterable[str] | None = None, **defaults: Any) -> str:
    """A table of the fields: name, type and range, default (`defaults` come from elsewhere), sentence."""
    schema, known = cls.model_json_schema(), _defaults(cls) | defaults
    rows = []
    for name in cls.model_fields if only is None else only:
        default = f"`{_toml(known[name])}`" if name in known else "required"
        kind = _kind(schema["properties"][name], schema.get("$defs", {}))
        told = " ".join((cls.model_fields[name].description or "").split())
        rows.append((f"`{name}`", kind, default, _linked(told)))
    table = _table(("option", "value", "default", "what"), rows)
    return f'<div class="options" markdown>\n\n{table}\n\n</div>' if rows else "It has no options."


def _defaults(cls: type[Options]) -> dict[str, Any]:
    fields = {name: field for name, field in cls.model_fields.items() if not field.is_required()}
    return {name: field.get_default() for name, field in fields.items()}


def _kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a value may be, in words, from its JSON schema."""
    if "$ref" in schema:
        return _kind(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one, definitions) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list, each {_kind(schema['items'], definitions)}" if "items" in schema else "list"
    words = {"boolean": "true or false", "string": "text", "object": "table", "null": "none"}
    return f"{words.get(kind, kind)}{_range(schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    low = next(((f"{schema[key]:g}", sign) for key, sign in (("minimum", "≤"), ("exclusiveMinimum", "<"))
                if key in schema), None)  # fmt: skip
    high = next(((f"{schema[key]:g}", sign) for key, sign in (("maximum", "≤"), ("exclusiveMaximum", "<"))
                 if key in schema), None)  # fmt: skip
    if low and high:
        return f", {low[0]} {low[1]} x {high[1]} {high[0]}"
    return f" {low[1].replace('<', '>').replace('≤', '≥')} {low[0]}" if low else f" {high[1]} {high[0]}" if high else ""


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


# ---- Markdown ----


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _prose(text: str) -> str:
    """A docstring as Markdown: lists and code get what Markdown wants around them, papers their address."""
    return _linked("\n\n".join(map(_paragraph, re.split(r"\n\n+", text))))


def _paragraph(text: str) -> str:
    if text.startswith("class "):
        return f"```python\n{text}\n```"
    if len(re.findall(_FIELD, text, re.MULTILINE)) > 1:  # one line a field
        text = re.sub(_FIELD, r"- `\1`: ", text, flags=re.MULTILINE)
    text = re.sub(r"^Differences from the paper(.*)", _differences, text)
    text = re.sub(r"^(?!- |  )(.*)\n(?=- )", r"\1\n\n", text, flags=re.MULTILINE)  # before a list
    return re.sub(r"^(- .*|  .*)\n(?!- |  )", r"\1\n\n", text, flags=re.MULTILINE)  # after it


def _linked(text: str) -> str:
    text = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"doi:(10\.[\w./-]+\w)", r"[doi:\1](https://doi.org/\1)", text)


def _differences(line: re.Match[str]) -> str:
    rest = line[1].lstrip(": ")
    return f"## Differences from the paper\n\n{rest[:1].upper()}{rest[1:]}".rstrip()


def _source(module: Any) -> str:
    path = Path(inspect.getsourcefile(module) or "")
    text = path.read_text(encoding="utf-8")
    return _folded(f"strategies/{path.name}", "python", text)


def _folded(title: str, language: str, text: str) -> str:
    code = textwrap.indent(f"```{language}\n{text.rstrip()}\n```", "    ", lambda line: bool(line.strip()))
    return f'??? quote "`{title}`"\n\n{code}'
