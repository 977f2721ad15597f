"""What MkDocs is told beside mkdocs.yml: pages that are made from code or stand elsewhere, and links between them.

A page of docs/ is read on GitHub too, so its links name files of the repository. Where such a file has a page here the
link leads there; a picture is copied; any other file is linked in the repository, if its address is known.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

import reference
from mkdocs.structure.files import File, Files

from fedsparse import registry

ROOT = Path(__file__).resolve().parents[2]

INCLUDED = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "format.md": "fedsparse/codec/FORMAT.md",
}
"""Pages whose text stands elsewhere in the repository."""

MADE = {
    "strategies/index.md": reference.strategies,
    "reference/commands.md": reference.commands,
    "reference/config.md": reference.config,
    "reference/configs.md": reference.configs,
    "reference/datasets.md": lambda: reference.plugs("datasets"),
    "reference/partitions.md": lambda: reference.plugs("partitions"),
    "reference/models.md": lambda: reference.plugs("models"),
    "reference/sparsifiers.md": lambda: reference.plugs("sparsifiers"),
    "reference/python.md": reference.python,
}
"""Pages that are made from code."""

HOMES = {
    "strategies": "strategies/index.md",
    "configs": "reference/configs.md",
    "datasets": "reference/datasets.md",
    "fedsparse/api.py": "reference/python.md",
    "fedsparse/cli": "reference/commands.md",
    "fedsparse/experiment.py": "reference/config.md",
    "fedsparse/models": "reference/models.md",
    "fedsparse/partition.py": "reference/partitions.md",
    "fedsparse/sections.py": "reference/config.md",
    "fedsparse/sparsifiers": "reference/sparsifiers.md",
} | {source: page for page, source in INCLUDED.items()}
"""The page of a file or folder of the repository."""

_LINK = r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s:#]+)(?P<anchor>#[^)\s]*)?\)"
_CODE = r"(?P<fence>^ *`{3,}).*?^(?P=fence) *$|`[^`\n]+`"
_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_LINK_OR_CODE = re.compile(f"{_LINK}|{_CODE}", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> None:
    """Each strategy's page stands in the nav; notebooks are run without a warning that is about their front end."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
    section = next(entry["Strategies"] for entry in config.nav if "Strategies" in entry)
    section[1:] = [{name: f"strategies/{name}.md"} for name in registry.names("strategies")]


def on_files(files: Files, config: Any) -> None:
    """Add the pages that are not in docs/, and the pictures that pages show from elsewhere."""
    pages = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in INCLUDED.items()}
    pages |= {page: make() for page, make in MADE.items()}
    pages |= {f"strategies/{name}.md": reference.strategy(name) for name in registry.names("strategies")}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    shown = {picture for page in files.documentation_pages() for picture in _pictures(page)}
    for picture in sorted(shown):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to files of the repository where they belong, and keep numbers in tables whole."""
    folder = posixpath.dirname(_source(page.file))
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # a list of one

    def led(link: re.Match[str]) -> str:
        if link["target"] is None:  # code, which may look like a link
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, link["target"]))
        found = _page(path, files)
        if found is not None:
            target = posixpath.relpath(found, posixpath.dirname(page.file.src_uri))
        elif config.extra["repository"] and (ROOT / path).exists():
            target = f"{config.extra['repository']}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"
        else:  # nowhere to go: a missing file is left for the strict build to find
            return link["text"] if (ROOT / path).exists() else link[0]
        return f"{link['image']}[{link['text']}]({target}{link['anchor'] or ''})"

    return _ROW.sub(_whole, _LINK_OR_CODE.sub(led, markdown))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Notebooks link to each other as files; whatever else links to one was led to its page before."""
    return re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', html)


def _whole(row: re.Match[str]) -> str:
    """A table's row whose numbers do not break before a sign."""
    return re.sub(" (?=[±%])|(?<=±) ", "\N{NO-BREAK SPACE}", row[0])


def _source(file: File) -> str:
    """Where a page's text stands in the repository; a page that is made from code counts as lying in docs/."""
    return INCLUDED.get(file.src_uri, f"docs/{file.src_uri}")


def _page(path: str, files: Files) -> str | None:
    """The file of the site for a path of the repository, None where it has none."""
    here = path.removeprefix("docs/") if path.startswith("docs/") else None
    strategy = re.fullmatch(r"strategies/(\w+)\.py", path)
    places = [here, HOMES.get(path), strategy and f"strategies/{strategy[1]}.md", path]
    found = (files.get_file_from_path(place) for place in places if place)
    return next((file.src_uri for file in found if file and file.inclusion.is_included()), None)


def _pictures(file: File) -> list[str]:
    """Pictures outside docs/ that a page shows, by their path in the repository."""
    if not file.src_uri.endswith(".md"):
        return []
    folder = posixpath.dirname(_source(file))
    targets = [link["target"] for link in _LINK_OR_CODE.finditer(file.content_string) if link["image"]]
    shown = [posixpath.normpath(posixpath.join(folder, target)) for target in targets]
    return [path for path in shown if not path.startswith("docs/")]
