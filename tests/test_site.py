"""The documentation site: it builds strictly, has a page for every strategy and no orphan, and loads nothing alien."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from fedsparse import registry

ROOT = Path(__file__).resolve().parent.parent
LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href", "object": "data"}
"""What a browser fetches by itself, by tag. (Of `link` only the kinds that are fetched.)"""


class Page(HTMLParser):
    """What a page says, where it leads, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.ids: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found["id"] or ""} if "id" in found else set()
        if tag == "a" and found.get("href"):
            self.links.add(str(found["href"]))
        if tag in LOADED and found.get(LOADED[tag]) and found.get("rel") not in ("next", "prev", "canonical"):
            self.loads.add(str(found[LOADED[tag]]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. REPOSITORY_URL is what a workflow sets."""
    out = tmp_path_factory.mktemp("docs") / "site"
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "REPOSITORY_URL": "https://example.org/us/fedsparse"}
    env.pop("DOCS_EXECUTE", None)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def led(page: str, link: str) -> str:
    """The file of the site that a link of a page names."""
    return os.path.normpath(os.path.join(os.path.dirname(page), unquote(urlsplit(link).path))).replace(os.sep, "/")


@pytest.mark.parametrize("name", registry.names("strategies"))
def test_every_strategy_has_its_page(pages: dict[str, Page], name: str) -> None:
    page = pages[f"strategies/{name}.html"]
    cls = registry.find("strategies", name)
    assert registry.summary("strategies", name).replace("`", "") in " ".join(page.text.split())
    for option, field in cls.model_fields.items():
        assert option in page.text
        told = re.sub(r"[`|\\]", "", " ".join((field.description or "").split()))
        assert told in re.sub(r"[`|\\]", "", " ".join(page.text.split())), option
    assert f"--set strategy={name}" in page.text
    assert f"class {cls.__name__}(" in page.text, "its source"


@pytest.mark.parametrize(
    ("page", "kind"),
    [("datasets", "datasets"), ("partitions", "partitions"), ("models", "models"), ("sparsifiers", "sparsifiers")]
    + [("configs", "configs")],
)
def test_everything_that_is_registered_is_in_the_reference(pages: dict[str, Page], page: str, kind: str) -> None:
    assert set(registry.names(kind)) <= pages[f"reference/{page}.html"].ids


def test_options_have_type_range_and_default(pages: dict[str, Page]) -> None:
    words = " ".join(pages["strategies/feddip.html"].text.split())
    assert "density number, 0 < x ≤ 1 0.1 Share of the maskable weights" in words
    assert 'uplink dense, masked, masked_residual, topk "masked" What clients send back.' in words
    assert "every integer ≥ 1 1 Rounds between masks." in words


def test_the_keys_of_a_config_are_there(pages: dict[str, Page]) -> None:
    words = " ".join(pages["reference/config.html"].text.split())
    for told in ("clients_per_round integer ≥ 1 or number, 0 < x ≤ 1 or all", 'name text "dirichlet"', "lr number > 0"):
        assert told in words


def test_no_page_is_an_orphan(pages: dict[str, Page]) -> None:
    """Every page can be reached from the first one."""
    reached, new = set(), {"index.html"}
    while new:
        page = new.pop()
        reached.add(page)
        new |= {led(page, link) for link in pages[page].links if not urlsplit(link).scheme} & set(pages) - reached
    assert set(pages) == reached


def test_links_lead_somewhere(site: Path, pages: dict[str, Page]) -> None:
    """Those within the site, their anchors too, and those to files of the repository."""
    wrong = []
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if link.startswith("https://example.org/us/fedsparse"):
                fits = (ROOT / re.sub(r"^.*/(blob|tree)/main/", "", parts.path)).exists()
            elif parts.scheme:
                fits = parts.scheme == "https"
            else:
                target = led(name, link) if parts.path not in ("", ".") else name
                fits = (site / target).is_file()
                if fits and target in pages and parts.fragment:
                    fits = parts.fragment in pages[target].ids
            wrong += [] if fits else [(name, link)]
    assert wrong == []


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert [target for target in page.loads if urlsplit(target).scheme not in ("", "data")] == [], name
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", text), sheet.name


def test_what_is_no_page_is_not_there(site: Path) -> None:
    ends = {path.suffix for path in site.rglob("*") if path.is_file()}
    assert ends <= {".html", ".css", ".js", ".json", ".map", ".png", ".svg", ".xml", ".gz", ".woff2"}


def test_the_included_pages_are_whole(pages: dict[str, Page]) -> None:
    for page, source in (("format", "fedsparse/codec/FORMAT.md"), ("contributing", "CONTRIBUTING.md")):
        heads = re.findall(r"^## (.+)$", (ROOT / source).read_text(encoding="utf-8"), re.MULTILINE)
        assert heads
        assert [head for head in heads if head.replace("`", "") not in pages[f"{page}.html"].text] == []
