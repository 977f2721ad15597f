"""The page in a real headless Chromium: nothing overflows, every figure decodes, nothing is asked for outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from synthetic import write_run, write_runs

from fedsparse.report import report
from fedsparse.results import Run, write_comparison

pytestmark = pytest.mark.browser
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--window-size=1500,1000",
)  # fmt: skip
PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true)
  const root = document.documentElement
  parent.postMessage(JSON.stringify({
    inside: innerWidth, needed: root.scrollWidth, paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color, images: [...document.images].map(i => i.naturalWidth),
    cards: getComputedStyle(document.querySelector(".cards thead")).display == "none",
    spilt: [...document.querySelectorAll(".cards tr, .cards th, .cards td")].filter(e => e.scrollWidth > e.clientWidth)
      .map(e => `${e.innerText}: ${e.scrollWidth} > ${e.clientWidth}`),
    asked: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
  }), "*")
})</script>"""
FRAME = """<!doctype html><title>waiting</title><script>onmessage = e => document.title = e.data</script>
<iframe src="page.html" style="width:{}px;height:900px;border:0"></iframe>"""
LONG = "a_label_of_sixty_four_characters_which_is_as_long_as_one_can_be_"


@pytest.fixture(scope="module")
def browser() -> str:
    found = os.environ.get("FEDSPARSE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(f"no Chromium: none of {', '.join(NAMES)} on the path, FEDSPARSE_CHROMIUM not set")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page") / "comparison"
    folders = write_runs(folder, seeds=2, rounds=10, flops=1e9)
    folders.append(write_run(folder / "long-seed0", variant=LONG, rounds=10, density=0.1, flops=1e9))
    folders.append(write_run(folder / "lost-seed0", variant="lost", played=2, status="failed", why="x" * 300))
    write_comparison(folder, [Run(f) for f in folders], {LONG: "strategy.density = 0.1, " + "y" * 200})
    return report([folder]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> str:
    """Errors of five digits and gigabytes, without figures."""
    folder = tmp_path_factory.mktemp("large") / "comparison"
    kinds = {"fedavg": 1.0, "feddip": 0.1, "feddip_released": 1.0}
    folders = [
        write_run(
            folder / f"{name}-seed{seed}", variant=name, seed=seed, rounds=4, density=density, error_metric=True,
            level=20_000.0 * (seed + 1), personal=30_000.0 * (seed + 1) * (1 + density), size=2_000_000_000, flops=1e16,
        )
        for name, density in kinds.items()
        for seed in range(2)
    ]  # fmt: skip
    write_comparison(folder, [Run(f) for f in folders])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsparse.report.draw", lambda section, end: [])
        return report([folder]).read_text(encoding="utf-8")


def seen(browser: str, page: str, folder: Path, width: int, dark: bool) -> dict[str, Any]:
    """What Chromium makes of the page at a width, in a frame because its windows are never narrower than 500."""
    (folder / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    own = f"--user-data-dir={folder / 'profile'}"
    command = [browser, *FLAGS, scheme, own, "--dump-dom", (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    title = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None and title[1].startswith("{"), done.stderr[-2000:]
    return json.loads(unescape(title[1]))


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (700, False), (1000, True), (1400, False)])
def test_the_page_fits_and_shows_its_figures(browser, page, tmp_path, width, dark):
    found = seen(browser, page, tmp_path, width, dark)
    assert found["inside"] == width and found["needed"] <= width
    assert found["asked"] == []
    assert len(found["images"]) == 17 and min(found["images"]) > 1000
    assert found["cards"] == (width <= 1184) and found["spilt"] == []
    paper, ink = (sum(map(int, re.findall(r"\d+", found[what])[:3])) for what in ("paper", "ink"))
    assert (paper < 120 and ink > 600) if dark else (paper > 700 and ink < 120)


@pytest.mark.parametrize("width", [360, 700, 1040, 1190, 1400])
def test_large_numbers_stay_in_their_cards(browser, large, tmp_path, width):
    found = seen(browser, large, tmp_path, width, False)
    assert found["needed"] <= width and found["spilt"] == []


def test_what_is_wrong_is_seen(browser, page, tmp_path):
    wrong = (
        '<table class=cards style="table-layout:fixed"><tr><td><div style="width:1800px">x</div></table>'
        '<div style="width:2000px">x</div><img src="data:image/png;base64,AAAA"><img src="http://example.org/a.png">'
    )
    found = seen(browser, page.replace("</main>", f"{wrong}</main>"), tmp_path, 1400, False)
    assert found["needed"] > 2000
    assert any(line.startswith("x: 18") for line in found["spilt"])
    assert found["images"][-2:] == [0, 0]
    assert found["asked"] == ["http://example.org/a.png"]
