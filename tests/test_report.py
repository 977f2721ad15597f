"""The page and its figures, of one run, of a comparison, of several folders, of runs that failed or go on."""

from __future__ import annotations

import base64
import re
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import RESNET, TIERS, write_many, write_run, write_runs

from fedsparse.cli.comparing import print_comparison
from fedsparse.cli.tables import print_run
from fedsparse.errors import InputError
from fedsparse.report import report
from fedsparse.report.canvas import looks
from fedsparse.report.clocks import rounds_figure
from fedsparse.report.curves import (
    Variant,
    agreement,
    client_metrics,
    curve,
    layer_density,
    layer_names,
    mix,
    round_time,
    task_times,
)
from fedsparse.report.figures import layers_figure, metric_figure
from fedsparse.report.lines import Frame, _target
from fedsparse.report.pictures import draw, variants
from fedsparse.report.sections import Picture, collect
from fedsparse.results import Run, load, write_comparison
from fedsparse.retime import PARTS

HOSTILE = '<script>alert("x")</script> & $x_1^{$ "\'><img src=x>'
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Tags with their attributes, the text, and tags that were not closed in order."""

    VOID = ("meta", "link", "img", "br", "wbr")

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


@pytest.fixture
def undrawn(monkeypatch):
    """Pages with a stand-in for their figures: drawing takes most of a report's time."""
    monkeypatch.setattr("fedsparse.report.draw", lambda section, end: [Picture(f"metric_round{end}.png", PNG, "One.")])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison with its report."""
    folder = comparison(tmp_path_factory.mktemp("comparisons") / "quick", rounds=10, seeds=2)
    return folder, Page(report([folder]))


def test_a_comparison_gets_its_figures_and_a_page(made):
    folder, page = made
    names = {path.name for path in (folder / "figures").iterdir()}
    views = {f"{word}_{what}.png" for word in ("metric", "personal") for what in ("total", "budget", "mb", "round")}
    assert names == views | {"clients.png", "bytes_round.png", "density_layers.png", "agreement_round.png"}
    for path in (folder / "figures").iterdir():
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size <= 200_000
    assert page.open == []
    assert len(page.all("img")) == len(names) and all(image["alt"] for image in page.all("img"))


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
    assert cells[1].startswith(
        f"{100 * feddip['final_mean']:.2f} ± {100 * feddip['final_sd']:.2f}\N{MINUS SIGN}1.00 ± "
    )
    assert cells[2].startswith(f"{100 * feddip['final_personal_mean']:.2f} ± ") and "\N{MINUS SIGN}1.00 ± " in cells[2]
    assert cells[3:5] == ["0.100", f"{100 * feddip['bytes_ratio']:.1f} %"]
    assert cells[5:7] == [f"{feddip['bytes_up_mean'] / 1e6:.2f}", f"{feddip['bytes_down_mean'] / 1e6:.2f}"]
    assert cells[7] == f"{feddip['mb_to_target_mean']:.2f}"
    masks = page.source.split("<tbody>")[1].split("<tr>")[3]
    assert masks.count(">-<") == 2 and "+2.00" in masks  # no global model: no metric, no MB to target


def test_the_second_table_is_at_equal_mb_with_the_best_first(made):
    folder, page = made
    section = collect([folder])[0]
    assert section.budget == "feddip"
    assert page.source.index("At equal density") < page.source.index("At equal MB") < page.source.index("<figure")
    assert page.text.index("best first") < page.text.index("Who sends less than the budget in all has a dash")
    rows = page.source.split("At equal MB")[1].split("<tbody>")[1].split("<tr>")[1:4]
    summary = section.summary.set_index("variant")
    for row, label in zip(rows, ("feddip", "fedavg", "personalized_masks"), strict=True):
        mean = summary.loc[label, "at_budget_mean"]
        assert label in row.replace("<wbr>", "")
        assert (f"<span>{100 * mean:.2f} <" if mean > 0 else "<span>-</span>") in row
        assert f"<span>{100 * summary.loc[label, 'personal_at_budget_mean']:.2f} <" in row
    assert f"used what feddip used in all on the same seed ({section.budget_mb:.2f} MB" in page.text


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


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
def test_one_run_needs_no_fedavg(tmp_path):
    page = Page(report([write_run(tmp_path / "one", variant="feddip", density=0.1, rounds=5)]))
    assert "Against FedAvg" not in page.text and "MB to target" not in page.text.split("Every run")[0]
    assert "seed 0" in page.text and "±" not in page.text
    assert (tmp_path / "one" / "figures" / "metric_round.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_a_running_run_shows_what_it_has(tmp_path):
    folder = write_run(tmp_path / "now", variant="feddip", rounds=9, played=4, closed=False)
    page = Page(report([folder]))
    assert "has not ended" in page.text and "The numbers are those so far" in page.text
    assert f"{100 * Run(folder).rounds['metric'].iloc[-1]:.2f}" in page.text


def test_a_run_without_rounds_has_a_page_without_figures(tmp_path):
    page = Page(report([write_run(tmp_path / "none", variant="feddip", played=0, status="failed", why="early")]))
    assert not page.all("img") and "early" in page.text


@pytest.mark.usefixtures("undrawn")
def test_errors_are_shown_in_their_own_unit(tmp_path):
    page = Page(report([comparison(tmp_path / "yields", rounds=10, seeds=1, error_metric=True)]))
    assert "RMSE, lower is better" in page.text and "1.05 times" in page.text and "RMSE %" not in page.text


def test_a_printed_run_without_a_global_model_has_a_dash(tmp_path, capsys):
    print_run(Run(write_run(tmp_path / "a", variant="fedavg", rounds=4, has_global=False)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["accuracy", "-"] in lines and any(line[:1] == ["personal"] and line[-1] == "%" for line in lines)


def test_the_name_of_the_target_stays_readable_before_lines():
    axes = Figure().add_subplot()
    line = axes.plot([0, 1], [0.9, 0.9])[0]
    (name,) = _target(axes, Frame("MB", "", lambda axes: None, str, target=(0.9, "target")))
    patch = name.get_bbox_patch()
    assert patch is not None and patch.get_facecolor()[:3] == (1, 1, 1) and name.zorder > line.zorder


@pytest.mark.parametrize("width", [120, 100, 80])
def test_the_printed_table_fits_its_terminal(made, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    print_comparison(load(made[0]))
    lines = capsys.readouterr().out.splitlines()
    table = lines[: lines.index("feddip: strategy.density = 0.1")]
    assert max(len(line.rstrip()) for line in table) <= width
    head = "".join(table)
    assert head.count("FedAvg") == {120: 3, 100: 2, 80: 2}[width]  # minus FedAvg, personal minus FedAvg, MB of FedAvg
    assert head.count("at 1.04 MB") == {120: 2, 100: 2, 80: 0}[width]


# the virtual clock


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A comparison whose runs have a clock, with its report."""
    folder = comparison(tmp_path_factory.mktemp("timed") / "quick", rounds=10, seeds=2, flops=1e9)
    return folder, Page(report([folder]))


def test_a_clock_adds_figures_with_the_devices_beside_the_time(timed, made):
    folder, page = timed
    names = [{path.name for path in (one / "figures").iterdir()} for one in (folder, made[0])]
    assert names[0] - names[1] == {
        "metric_time.png", "personal_time.png", "devices.png", "round_time.png", "devices_time.png",
    }  # fmt: skip
    assert all(path.stat().st_size <= 200_000 for path in (folder / "figures").iterdir())
    captions = [image["alt"] for image in page.all("img")]
    assert "against simulated time" in captions[0] and captions[1].startswith("The clients' devices")


def test_a_clock_adds_columns_and_pages_without_one_have_none(timed, made):
    folder, page = timed
    summary = load(folder).summary.set_index("variant")
    row = page.source.split("<tbody>")[1].split("<tr>")[2]
    cells = [re.sub(r"<[^>]+>", "", cell).replace("&nbsp;", " ") for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
    own = summary.loc["feddip"]
    assert cells[8:] == [
        f"{own['sim_seconds_mean']:.1f} s{100 * own['sim_ratio']:.1f} % of FedAvg's",
        f"{own['sim_to_target_mean']:.1f} s",
    ]
    assert own["sim_ratio"] < 1 and "Time to target" in page.text
    assert "Simulated" not in made[1].text and "Time to target" not in made[1].text


def test_what_a_round_and_a_client_take(timed):
    shown = {v.label: v for v in variants(collect([timed[0]])[0])}
    clients = mix(shown["fedavg"])
    assert clients.groupby("device")["flops"].unique().to_dict() == {"fast": [2e9], "slow": [2e8]}
    found = task_times(shown["fedavg"])
    assert len(found) == 2 * 10 * 4 and (found["sim_seconds"] > 5).equals(found["device"] == "slow")
    parts = round_time(shown["fedavg"])
    assert (parts["who"], parts["share"]) == ("slow", 1) and parts["compute"] == pytest.approx(5.0)
    line = curve(shown["fedavg"], "metric", "time")
    assert line.x[-1] == pytest.approx(parts[PARTS].sum() * 10)


def test_work_whose_reply_was_lost_is_left_out(tmp_path):
    run = Run(write_run(tmp_path / "one", variant="one", rounds=3, flops=1e9))
    lost = (run.clients["round"] == 2) & (run.clients["client"] == 1)
    run.clients.loc[lost & (run.clients["phase"] == "train"), "status"] = "lost"
    statistics = run.clients[lost & (run.clients["phase"] == "train")].assign(phase="statistics", status="ok")
    run.clients = pd.concat([run.clients, statistics])  # of one task of two
    found = task_times(Variant("one", "one", [run]))
    assert len(found) == 3 * 4 - 1 and len(task_times(Variant("none", "none"))) == 0


def test_long_names_of_devices_leave_room_for_the_bars(tmp_path):
    pictures = []
    for longest in (17, 60):
        tiers = {"slow" * 15: TIERS["slow"], "fast": TIERS["fast"]}
        tiers = {name[:longest]: tier for name, tier in tiers.items()}
        run = Run(write_run(tmp_path / str(longest), variant="one", rounds=2, flops=1e9, devices=tiers))
        pictures.append(rounds_figure([Variant("one", "one", [run])]))
    assert pictures[0] == pictures[1]


def test_the_page_says_what_ends_a_round(timed):
    assert (
        "until the deadline where a reply is late or lost" in timed[1].text and "or the first so many" in timed[1].text
    )


def test_runs_without_a_clock_stand_aside(tmp_path):
    folders = [write_run(tmp_path / name, variant=name, rounds=5, flops=f) for name, f in (("a", 1e9), ("b", 0.0))]
    (section,) = collect(folders)
    drawn = {picture.file: picture.caption for picture in draw(section, "")}
    assert "Without b: no clock" in drawn["metric_time.png"] and "devices_time.png" in drawn


def test_the_printed_tables_tell_the_simulated_time(timed, capsys, monkeypatch):
    for width in (80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        print_comparison(load(timed[0]))
        lines = capsys.readouterr().out.splitlines()
        table = lines[: lines.index("feddip: strategy.density = 0.1")]
        assert max(len(line.rstrip()) for line in table) <= width
        assert "sim." in "".join(table)
    print_run(load(timed[0]).runs[0])
    assert "simulated" in capsys.readouterr().out


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


@pytest.mark.usefixtures("undrawn")
def test_two_metrics_make_two_sections(tmp_path):
    both = [
        comparison(tmp_path / "digits", rounds=5, seeds=1),
        comparison(tmp_path / "yields", rounds=5, seeds=1, error_metric=True),
    ]
    path = report(both, tmp_path / "page")
    assert path == tmp_path / "page" / "report.html"
    page = Page(path)
    assert {a.get("class") for a in page.all("table")} == {"cards", "small", ""} and len(page.all("table")) == 6
    names = {p.name for p in (tmp_path / "page" / "figures").iterdir()}
    assert names == {"metric_round-digits-accuracy.png", "metric_round-yields-rmse.png"}
    assert report(both, tmp_path / "page") == path  # an earlier report may be made anew


@pytest.mark.usefixtures("undrawn")
def test_a_table_without_its_run_folders_is_kept(tmp_path):
    whole, other = comparison(tmp_path / "whole", rounds=5, seeds=1), write_run(tmp_path / "o", variant="x", rounds=5)
    kept = tmp_path / "kept"
    kept.mkdir()
    (whole / "comparison.csv").rename(kept / "comparison.csv")
    (alone,) = collect([kept])
    (merged,) = collect([kept, other])
    for name in ("mb_to_target", "metric_at_budget"):
        assert merged.table[name].iloc[1] == alone.table[name].iloc[1] > 0
    assert merged.summary["variant"].tolist()[-1] == "x"
    assert report([kept]).is_file()


@pytest.mark.usefixtures("undrawn")
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
    found = curve(Variant("a", "a", runs), "metric", "mb")
    both = np.array([run.rounds["metric"].dropna() for run in runs])
    np.testing.assert_allclose(found.mean, both.mean(0))
    np.testing.assert_allclose(found.sd, both.std(0, ddof=1))
    per_round = float((runs[0].rounds["bytes_up"] + runs[0].rounds["bytes_down"]).iloc[0]) / 1e6
    np.testing.assert_allclose(found.x, [2 * per_round, 4 * per_round, 6 * per_round])
    assert list(curve(Variant("a", "a", runs[:1]), "metric", "round").x) == [2, 4, 6]
    none = Run(write_run(tmp_path / "none", variant="a", has_global=False))
    assert curve(Variant("a", "a", [none]), "metric", "round") is None


def test_the_baseline_is_black_and_looks_repeat_late():
    found = looks([Variant(name, name) for name in ["feddip", "fedavg", *map(str, range(20))]])
    assert found["fedavg"] == ("#1a1a1a", "-", "o")
    assert len({str(look) for look in found.values()}) == 22


def test_what_layers_and_clients_files_give(tmp_path):
    runs = [
        Run(write_run(tmp_path / str(s), variant="a", seed=s, rounds=4, eval_every=2, density=0.1, own_masks=True))
        for s in range(2)
    ]
    variant, dense = Variant("a", "a", runs), Variant("b", "b", [Run(write_run(tmp_path / "b", variant="b", rounds=2))])
    layers = layer_names([variant, dense])
    assert layers == ["conv1.weight", "conv2.weight", "fc.weight"]
    np.testing.assert_allclose(layer_density(variant, layers).mean, [0.6, 0.2, 0.08])
    assert layer_density(dense, layers) is None and agreement(dense) is None
    found = agreement(variant)
    assert list(found.x) == [2, 4] and list(found.mean) == pytest.approx([0.65, 0.4])
    clients = client_metrics(variant)
    assert len(clients) == 8 and list(clients) == sorted(clients)
    assert clients.mean() == pytest.approx(np.mean([run.rounds["metric_personal"].iloc[-1] for run in runs]))


def test_many_variants_have_a_panel_each_and_small_files(tmp_path):
    write_comparison(tmp_path, [Run(f) for f in write_many(tmp_path, seeds=1, rounds=12, layers=RESNET)])
    (section,) = collect([tmp_path])
    assert len(shown := variants(section)) == 18 and section.budget == "feddip_10"
    lines = metric_figure(shown, "metric_personal", "round", "Personal accuracy %", True, percent=True)
    layers = layers_figure(shown[:9])  # four of them are sparse: together in one frame
    for data in (lines, layers):
        assert data.startswith(PNG) and len(data) <= 200_000
    (width, height), (_, low) = (struct.unpack(">II", data[16:24]) for data in (lines, layers))
    assert height > 1.2 * width > 1.5 * low
    row = section.summary.set_index("variant").loc["local_only"]
    assert section.why(row, "at_budget") == "no global model"
    assert section.why(row, "personal_at_budget").startswith("ends at 0.")


def test_without_any_global_model_the_personal_metric_is_shown(tmp_path):
    for name in ("local_only", "personalized_masks", "feddip"):
        write_run(tmp_path / "c" / f"{name}-seed0", variant=name, rounds=6, has_global=False)
    write_comparison(tmp_path / "c", [Run(path) for path in sorted((tmp_path / "c").iterdir())])
    page = Page(report([tmp_path / "c"]))
    names = {path.name for path in (tmp_path / "c" / "figures").iterdir()}
    assert not any(name.startswith("metric") for name in names)
    assert {"personal_total.png", "personal_budget.png", "personal_mb.png", "clients.png"} <= names
    assert "At equal MB" in page.text


def test_a_figure_of_kept_folders_says_which(tmp_path):
    folder = comparison(tmp_path / "c", rounds=10, seeds=1)
    for name in ("fedavg", "personalized_masks"):
        shutil.rmtree(folder / f"{name}-seed0")
    (section,) = collect([folder])
    drawn = {picture.file: picture.caption for picture in draw(section, "")}
    kept = "Of the runs whose folders were kept: feddip."
    assert drawn["metric_mb.png"].endswith(kept) and kept not in drawn["metric_total.png"]
    assert section.summary["personal_at_budget_mean"].notna().all()  # from comparison.csv
