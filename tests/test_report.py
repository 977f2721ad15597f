"""The page and its figures, of one run, of a comparison, of several folders, of runs that failed or go on."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_run, write_runs

from fedsparse.errors import InputError
from fedsparse.report import report
from fedsparse.report.curves import Variant, curve, looks
from fedsparse.report.sections import collect
from fedsparse.results import Run, write_comparison

HOSTILE = '<script>alert("x")</script> & $x_1^{$ "\'><img src=x>'
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Tags with their attributes, the text, and tags that were not closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def comparison(folder: Path, **how) -> Path:
    folders = write_runs(folder, **how)
    write_comparison(folder, [Run(f) for f in folders], {"feddip": "strategy.density = 0.1"})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison with its report."""
    folder = comparison(tmp_path_factory.mktemp("comparisons") / "quick", rounds=10, seeds=2)
    return folder, Page(report([folder]))


def test_a_comparison_gets_its_figures_and_a_page(made):
    folder, page = made
    names = {path.name for path in (folder / "figures").iterdir()}
    expected = {"metric_round.png", "metric_mb.png", "personal_round.png", "personal_mb.png", "bytes_round.png"}
    assert names == expected
    for path in (folder / "figures").iterdir():
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size <= 200_000
    assert page.open == []
    assert len(page.all("img")) == 5 and all(image["alt"] for image in page.all("img"))


def test_the_page_asks_for_nothing_outside(made):
    _, page = made
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.source)
    assert "url(" not in page.source and "@import" not in page.source
    assert not page.all("script") and not page.all("iframe")


def test_the_figures_in_the_page_are_the_files(made):
    folder, page = made
    shown = {base64.b64decode(image["src"].partition("base64,")[2]) for image in page.all("img")}
    assert shown == {path.read_bytes() for path in (folder / "figures").iterdir()}


def test_the_table_comes_first_and_holds_the_summary(made):
    folder, page = made
    assert page.source.index("<table") < page.source.index("<figure")
    summary = collect([folder])[0].summary.set_index("variant")
    row = page.source.split("<tbody>")[1].split("<tr>")[2]
    cells = [re.sub(r"<[^>]+>", "", cell).replace("&nbsp;", " ") for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
    feddip = summary.loc["feddip"]
    assert cells[0] == "feddipstrategy.density = 0.1"
    assert cells[1] == f"{100 * feddip['final_mean']:.2f} ± {100 * feddip['final_sd']:.2f}"
    assert cells[2].startswith(f"\N{MINUS SIGN}{-100 * feddip['final_diff']:.2f} ± ")
    assert cells[4:7] == ["0.100", f"{feddip['bytes_up_mean'] / 1e6:.2f}", f"{feddip['bytes_down_mean'] / 1e6:.2f}"]
    assert cells[7] == f"{100 * feddip['bytes_ratio']:.1f} %"
    assert cells[8] == f"{feddip['mb_to_target_mean']:.2f}"
    masks = page.source.split("<tbody>")[1].split("<tr>")[3]
    assert masks.count(">-<") == 3  # no global model: no metric, no difference, no MB to target


def test_the_page_says_how_it_was_made_and_what_words_mean(made):
    _, page = made
    for text in (
        "fedsparse run quickstart --set strategy=feddip",
        "torch 2.13.0",
        "0123456",
        "Linux, x86_64",
        "last tenth of the rounds",
        "95 % of FedAvg's final",
        "1,000,000 bytes",
        'name = "digits"',
    ):
        assert text in page.text
    assert "stock Flower would send 6.00 MB up and 6.00 MB down" in page.text
    assert "paper_bytes" in page.text
    assert "prefers-color-scheme:dark" in page.source and "max-width:46rem" in page.source


def test_the_same_folder_gives_the_same_page_again(made):
    folder, page = made
    assert report([folder]).read_text(encoding="utf-8") == page.source


def test_what_users_write_is_escaped(tmp_path):
    folder = tmp_path / "a <b> & c"
    good = write_run(folder / "x-seed0", variant=HOSTILE, rounds=3, command=HOSTILE, commit=HOSTILE, host=HOSTILE)
    bad = write_run(folder / "y-seed0", variant="y", rounds=3, played=1, status="failed", why=HOSTILE, dataset="digits")
    (good / "config.toml").write_text(f"# {HOSTILE}\n")
    write_comparison(folder, [Run(good), Run(bad)], {HOSTILE: HOSTILE})
    page = Page(report([folder]))
    assert page.open == []
    assert not page.all("script") and {image["src"][:5] for image in page.all("img")} == {"data:"}
    assert page.text.count(HOSTILE) >= 6
    assert "a <b> & c" in page.text


def test_failed_runs_are_named_and_left_out(tmp_path):
    folders = write_runs(tmp_path / "c", seeds=1, rounds=5)
    folders.append(
        write_run(
            tmp_path / "c" / "feddip-seed1",
            variant="feddip",
            seed=1,
            rounds=5,
            played=2,
            status="failed",
            why="client 3 was lost",
        )
    )
    folders.append(
        write_run(tmp_path / "c" / "topk-seed0", variant="topk", rounds=5, played=0, status="failed", why="no")
    )
    write_comparison(tmp_path / "c", [Run(f) for f in folders])
    page = Page(report([tmp_path / "c"]))
    assert "feddip, seed 1 failed: client 3 was lost" in page.text and "topk, seed 0 failed: no" in page.text
    assert "1 of 2 runs done" in page.text


def test_one_run_needs_no_fedavg(tmp_path):
    page = Page(report([write_run(tmp_path / "one", variant="feddip", density=0.1, rounds=5)]))
    assert "Against FedAvg" not in page.text and "MB to target" not in page.text.split("Every run")[0]
    assert "seed 0" in page.text and "±" not in page.text
    assert (tmp_path / "one" / "figures" / "metric_round.png").is_file()


def test_a_running_run_shows_what_it_has(tmp_path):
    folder = write_run(tmp_path / "now", variant="feddip", rounds=9, played=4, closed=False)
    page = Page(report([folder]))
    assert "has not ended" in page.text and "The numbers are those so far" in page.text
    assert f"{100 * Run(folder).rounds['metric'].iloc[-1]:.2f}" in page.text


def test_a_run_without_rounds_has_a_page_without_figures(tmp_path):
    page = Page(report([write_run(tmp_path / "none", variant="feddip", played=0, status="failed", why="early")]))
    assert not page.all("img") and "early" in page.text


def test_errors_are_shown_in_their_own_unit(tmp_path):
    page = Page(report([comparison(tmp_path / "yields", rounds=10, seeds=1, error_metric=True)]))
    assert "RMSE, lower is better" in page.text and "1.05 times" in page.text and "RMSE %" not in page.text


# several folders


def test_equal_configs_are_one_variant_and_equal_runs_count_once(tmp_path):
    first = write_run(tmp_path / "a", variant="feddip", seed=0, rounds=5)
    second = write_run(tmp_path / "b", variant="feddip", seed=1, rounds=5)
    (section,) = collect([first, second, first])
    assert section.summary["variant"].tolist() == ["feddip"] and section.summary["seeds"].tolist() == [2]


def test_other_configs_get_their_folders_names(tmp_path):
    folders = [
        write_run(tmp_path / name, variant="feddip", rounds=5, density=d) for name, d in (("a", 0.1), ("b", 0.2))
    ]
    base = comparison(tmp_path / "base", rounds=5, seeds=1)
    (section,) = collect([base, *folders])
    assert section.summary["variant"].tolist() == ["fedavg", "feddip", "personalized_masks", "feddip (b)"]
    assert section.summary["overrides"].tolist() == ["", "strategy.density = 0.1", "", ""]
    assert section.summary["bytes_ratio"].notna().all()  # all stand against the one FedAvg


def test_folders_of_one_name_are_told_apart(tmp_path):
    for n, parent in enumerate(("x", "y")):
        write_run(tmp_path / parent / "run", variant="feddip", rounds=5, density=0.1 + n / 10)
    (section,) = collect([tmp_path / "x" / "run", tmp_path / "y" / "run"])
    assert section.summary["variant"].tolist() == ["feddip", "feddip (y/run)"]


def test_two_metrics_make_two_sections(tmp_path):
    both = [
        comparison(tmp_path / "digits", rounds=5, seeds=1),
        comparison(tmp_path / "yields", rounds=5, seeds=1, error_metric=True),
    ]
    path = report(both, tmp_path / "page")
    assert path == tmp_path / "page" / "report.html"
    page = Page(path)
    assert {a.get("class") for a in page.all("table")} == {"cards", ""} and len(page.all("table")) == 4
    names = {p.name for p in (tmp_path / "page" / "figures").iterdir()}
    assert {"metric_round-digits-accuracy.png", "metric_round-yields-rmse.png"} < names
    assert report(both, tmp_path / "page") == path  # an earlier report may be made anew


def test_a_table_without_its_run_folders_is_kept(tmp_path):
    whole, other = comparison(tmp_path / "whole", rounds=5, seeds=1), write_run(tmp_path / "o", variant="x", rounds=5)
    kept = tmp_path / "kept"
    kept.mkdir()
    (whole / "comparison.csv").rename(kept / "comparison.csv")
    (alone,) = collect([kept])
    (merged,) = collect([kept, other])
    assert merged.table["mb_to_target"].iloc[0] == alone.table["mb_to_target"].iloc[0] > 0
    assert merged.summary["variant"].tolist()[-1] == "x"
    assert report([kept]).is_file()


def test_without_out_several_folders_go_to_a_new_one_under_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / name, variant=name, rounds=3) for name in "ab"]
    path = report(runs)
    assert path.resolve().parent.parent == tmp_path / "runs" and path.parent.name.startswith("report-")


def test_what_cannot_be_reported_is_refused(tmp_path):
    run = write_run(tmp_path / "run", variant="feddip", rounds=3)
    with pytest.raises(InputError, match="at least one folder"):
        report([])
    with pytest.raises(InputError, match="nowhere"):
        report([tmp_path / "nowhere"])
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    for out in (full, full / "mine.txt"):
        with pytest.raises(InputError, match="full"):
            report([run], out)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


# curves


def test_a_curve_is_the_mean_over_the_seeds_where_all_were_evaluated(tmp_path):
    runs = [Run(write_run(tmp_path / str(s), variant="a", seed=s, rounds=6, eval_every=2)) for s in range(2)]
    found = curve(Variant("a", "a", [run.rounds for run in runs]), "metric", "mb")
    both = np.array([run.rounds["metric"].dropna() for run in runs])
    np.testing.assert_allclose(found.mean, both.mean(0))
    np.testing.assert_allclose(found.sd, both.std(0, ddof=1))
    per_round = float((runs[0].rounds["bytes_up"] + runs[0].rounds["bytes_down"]).iloc[0]) / 1e6
    np.testing.assert_allclose(found.x, [2 * per_round, 4 * per_round, 6 * per_round])
    assert list(curve(Variant("a", "a", [runs[0].rounds]), "metric", "round").x) == [2, 4, 6]
    assert curve(Variant("a", "a", [runs[0].rounds.assign(metric=np.nan)]), "metric", "round") is None


def test_the_baseline_is_black_and_looks_repeat_late():
    found = looks([Variant(name, name, []) for name in ["feddip", "fedavg", *map(str, range(20))]])
    assert found["fedavg"] == ("#1a1a1a", "-")
    assert len({str(look) for look in found.values()}) == 22
