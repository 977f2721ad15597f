"""`final`, MB to target, tables of runs and variants: expectations worked out by hand; and reading folders back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from synthetic import write_run, write_runs

from fedsparse import columns
from fedsparse.errors import InputError
from fedsparse.measures import (
    at_budget,
    baselines,
    cumulative_mb,
    final_of,
    mb_to_target,
    run_table,
    sim_to_target,
    summarise,
    target_of,
    time_unit,
)
from fedsparse.results import Comparison, Run, load, write_comparison


def rounds(metric, up=1_000_000, down=500_000, personal=None, start=1):
    rows = [
        {
            "round": start + i,
            "metric": m,
            "metric_personal": None if personal is None else personal[i],
            "bytes_up": up,
            "bytes_down": down,
        }
        for i, m in enumerate(metric)
    ]
    return columns.frame(rows, columns.ROUNDS)


def keys(variant, seed=0, *, final=0.9, up=100, down=100, own=0.5, strategy=None, status="done", higher=True, **more):
    return {
        "variant": variant,
        "strategy": strategy or variant,
        "seed": seed,
        "rounds": 4,
        "higher_is_better": higher,
        "final": final,
        "final_personal": own,
        "bytes_up": up,
        "bytes_down": down,
        "density": 1.0,
        "seconds": 2.0,
        "status": status,
        **more,
    }


# final


def test_final_is_the_mean_over_the_last_tenth():
    assert final_of(rounds([0.0] * 36 + [0.1, 0.2, 0.3, 0.4]), 40) == pytest.approx(0.25)


def test_final_of_few_rounds_is_the_last():
    assert final_of(rounds([0.1, 0.9, 0.5]), 3) == 0.5
    assert final_of(rounds([0.0] * 17 + [0.4, 0.6]), 19) == 0.6  # a tenth of 19 is one whole round


def test_final_skips_rounds_without_evaluation():
    metric = [None] * 20
    metric[14], metric[18], metric[19] = 0.1, 0.5, 0.7
    assert final_of(rounds(metric), 20) == pytest.approx(0.6)  # rounds 19 and 20
    metric[18] = None
    assert final_of(rounds(metric), 20) == 0.7


def test_final_of_a_run_cut_short_is_its_last_evaluation():
    assert final_of(rounds([0.2, 0.3, None]), 40) == 0.3
    assert math.isnan(final_of(rounds([]), 40))


def test_final_is_null_where_the_last_round_has_no_value():
    assert math.isnan(final_of(rounds([None] * 10), 10))
    assert math.isnan(final_of(rounds([0.5] * 39 + [None]), 40))  # diverged at the end: not the mean of better days


def test_final_does_not_depend_on_the_order_of_rows():
    frame = rounds([0.1, 0.2, 0.3])
    assert final_of(frame.iloc[::-1], 3) == 0.3


# MB to target


def test_mb_to_target_counts_both_directions_up_to_the_first_round_that_reaches():
    frame = rounds([0.5, 0.95, 0.7, 0.99])
    assert list(cumulative_mb(frame)) == [1.5, 3.0, 4.5, 6.0]
    assert mb_to_target(frame, 0.9, True) == 3.0
    assert mb_to_target(frame, 0.95, True) == 3.0  # a tie reaches
    assert math.isnan(mb_to_target(frame, 0.999, True))


def test_mb_to_target_of_an_error_metric():
    frame = rounds([9.0, None, 5.2, 4.0])
    assert target_of(5.0, False) == 5.25
    assert mb_to_target(frame, 5.25, False) == 4.5
    assert math.isnan(mb_to_target(frame, 3.0, False))


def test_mb_to_target_never_stops_at_a_round_without_evaluation():
    assert mb_to_target(rounds([None, None, 0.9]), 0.5, True) == 4.5
    assert math.isnan(mb_to_target(rounds([None, None, None]), 0.5, True))
    assert math.isnan(mb_to_target(rounds([0.9]), math.nan, True))


def clocked(metric, seconds):
    return rounds(metric).assign(sim_seconds=seconds)


def test_time_to_target_counts_simulated_seconds_up_to_the_first_round_that_reaches():
    frame = clocked([0.5, None, 0.95, 0.99], [10.0, 20.0, 5.0, 1.0])
    assert sim_to_target(frame, 0.9, True) == 35.0
    assert sim_to_target(frame.iloc[::-1], 0.99, True) == 36.0
    assert math.isnan(sim_to_target(frame, 0.999, True))
    assert sim_to_target(clocked([9.0, 5.0], [2.0, 3.0]), 5.25, False) == 5.0
    assert math.isnan(sim_to_target(rounds([0.9]), 0.5, True))  # no clock


def test_simulated_time_is_summed_up_and_set_against_fedavgs_of_the_same_seed():
    rows = [
        (keys("fedavg", 0, final=0.8, sim_seconds=30.0), clocked([0.5, 0.77, 0.8], 10.0)),
        (keys("fedavg", 1, final=0.8, sim_seconds=60.0), clocked([0.5, 0.77, 0.8], 20.0)),
        (keys("feddip", 0, sim_seconds=15.0), clocked([0.76, 0.9, 0.9], 5.0)),  # half
        (keys("feddip", 1, sim_seconds=15.0), clocked([0.1, 0.76, 0.9], 5.0)),  # a quarter
        (keys("feddip", 2, sim_seconds=15.0), clocked([0.1, 0.76, 0.9], 5.0)),  # no FedAvg with this seed
        (keys("topk", 0), rounds([0.9])),  # no clock
    ]
    table = run_table(rows)
    assert table["sim_to_target"].tolist() == pytest.approx([20, 40, 5, 10, math.nan, math.nan], nan_ok=True)
    summary = summarise(table).set_index("variant")
    assert summary["sim_ratio"].tolist() == pytest.approx([1, 0.375, math.nan], nan_ok=True)
    assert summary["sim_seconds_mean"].tolist() == pytest.approx([45, 15, math.nan], nan_ok=True)
    assert summary.loc["fedavg", "sim_to_target_mean"] == 30 and math.isnan(summary.loc["feddip", "sim_to_target_mean"])


@pytest.mark.parametrize(("seconds", "unit"), [(0.1, "s"), (179, "s"), (180, "min"), (10_800, "h"), (3e5, "days")])
def test_a_time_has_at_least_three_of_its_unit(seconds, unit):
    assert time_unit(seconds).name == unit


def test_table_takes_the_target_from_fedavg_on_the_same_seed():
    table = run_table(
        [
            (keys("fedavg", 0, final=0.8), rounds([0.5, 0.77, 0.8])),  # target 0.76
            (keys("fedavg", 1, final=1.0), rounds([0.5, 0.77, 1.0])),  # target 0.95
            (keys("feddip", 0), rounds([0.76, 0.9, 0.9])),
            (keys("feddip", 1), rounds([0.76, 0.9, 0.9])),  # never
            (keys("feddip", 2), rounds([0.76, 0.9, 0.9])),  # no FedAvg with this seed
        ]
    )
    expected = [3.0, 4.5, 1.5, math.nan, math.nan]
    assert table["mb_to_target"].tolist() == pytest.approx(expected, nan_ok=True)
    assert list(table.columns)[: len(columns.RUN_KEYS)] == list(columns.RUN_KEYS)


def test_table_of_failed_runs_and_of_a_failed_fedavg_has_no_target():
    table = run_table(
        [
            (keys("fedavg", 0, status="failed", final=math.nan), rounds([0.5])),
            (keys("fedavg", 1, final=0.5), rounds([0.5])),
            (keys("feddip", 0), rounds([0.9])),
            (keys("feddip", 1, status="failed"), rounds([0.9])),
        ]
    )
    assert table["mb_to_target"].tolist() == pytest.approx([math.nan, 1.5, math.nan, math.nan], nan_ok=True)
    assert list(table["status"]) == ["failed", "done", "done", "failed"]


def test_table_carries_the_optional_numbers():
    table = run_table(
        [
            (keys("fedavg", stock_bytes_up=7, stock_bytes_down=8), rounds([0.5])),
            (keys("feddip", paper_bytes=9, something_else=1), rounds([0.5])),
        ]
    )
    assert list(table.columns)[len(columns.RUN_KEYS) :] == [
        "mb_to_target",
        "budget",
        "metric_at_budget",
        "personal_at_budget",
        "sim_to_target",
        "paper_bytes",
        "stock_bytes_down",
        "stock_bytes_up",
    ]
    assert table["stock_bytes_up"].tolist() == pytest.approx([7.0, math.nan], nan_ok=True)


# at equal MB


def test_a_value_at_a_budget_lies_on_the_line_between_evaluations():
    frame = rounds([None, 0.2, None, 0.6])  # evaluated at 3 and 6 MB
    assert at_budget(frame, 3.0) == 0.2
    assert at_budget(frame, 4.5) == pytest.approx(0.4)
    assert at_budget(frame.iloc[::-1], 5.25) == pytest.approx(0.5)
    assert at_budget(rounds([0.1, 0.3], personal=[0.5, 0.9]), 2.25, "metric_personal") == pytest.approx(0.7)


def test_a_budget_before_the_first_evaluation_or_beyond_the_end_has_no_value():
    frame = rounds([None, 0.2, None, 0.6])
    assert math.isnan(at_budget(frame, 2.9))
    assert at_budget(frame, 6.0 / 0.97) == 0.6  # it ends 3 % below
    assert math.isnan(at_budget(frame, 6.0 / 0.96))
    assert math.isnan(at_budget(rounds([None, None]), 1.0)) and math.isnan(at_budget(rounds([]), 1.0))


def test_a_curve_that_ends_in_null_has_no_value_beyond_its_last_one():
    frame = rounds([0.5] * 99 + [None])  # diverged: 148.5 of 150 MB
    assert at_budget(frame, 148.5) == 0.5
    assert math.isnan(at_budget(frame, 149.0))


def test_the_table_reads_every_run_at_the_references_mb_of_the_same_seed():
    rows = [
        (keys("fedavg", 0, up=6_000_000, down=0), rounds([0.4, 0.8, 0.9], up=2_000_000, down=0)),
        (keys("feddip", 0, up=3_000_000, down=0), rounds([0.3, 0.5, 0.7], up=1_000_000, down=0)),
        (keys("feddip", 1, up=2_000_000, down=0), rounds([0.3, 0.6], up=1_000_000, down=0)),
        (keys("topk", 0, up=1, down=0), rounds([0.8], up=1, down=0)),  # never gets there
        (keys("topk", 1, up=4_000_000, down=0), rounds([0.2, 0.4], up=2_000_000, down=0)),
        (keys("topk", 2, up=4_000_000, down=0), rounds([0.2, 0.4], up=2_000_000, down=0)),  # no feddip with this seed
    ]
    table = run_table(rows)
    assert table["budget"].unique().tolist() == ["feddip"]
    expected = [0.6, 0.7, 0.6, math.nan, 0.2, math.nan]
    assert table["metric_at_budget"].tolist() == pytest.approx(expected, nan_ok=True)
    assert table["personal_at_budget"].isna().all()
    summary = summarise(table).set_index("variant")
    assert summary["budget"].tolist() == ["feddip"] * 3
    assert summary["at_budget_mean"].tolist() == pytest.approx([0.6, 0.65, math.nan], nan_ok=True)
    assert summary.loc["feddip", "at_budget_sd"] == pytest.approx(0.05 * math.sqrt(2))


def test_the_reference_is_the_one_named_else_the_first_feddip_else_none():
    def chosen(*variants, **more):
        return run_table((keys(label, strategy=name, **more), rounds([0.5])) for label, name in variants)["budget"][0]

    both = ("low", "feddip"), ("feddip", "feddip"), ("topk", "topk")
    assert chosen(*both) == "low"
    assert chosen(*both, budget="topk") == "topk"
    assert chosen(*both, budget="gone") == "low"
    assert chosen(("topk", "topk")) == ""


def test_each_data_set_has_its_own_reference():
    rows = [
        (keys("a", strategy="feddip", dataset="x", up=1_000_000, down=0), rounds([0.5], up=1_000_000, down=0)),
        (keys("b", strategy="feddip", dataset="y", up=2_000_000, down=0), rounds([0.7], up=2_000_000, down=0)),
    ]
    table = run_table(rows)
    assert table["budget"].tolist() == ["a", "b"] and table["metric_at_budget"].tolist() == [0.5, 0.7]


def test_what_was_measured_stays_for_runs_without_rounds_if_the_reference_is_the_same():
    known = {"mb_to_target": 3.0, "metric_at_budget": 0.6, "personal_at_budget": 0.5}
    rows = [(keys("feddip", budget="feddip", **known), rounds([])), (keys("topk", budget="topk", **known), rounds([]))]
    table = run_table(rows)
    assert table["budget"].tolist() == ["feddip"] * 2 and table["mb_to_target"].tolist() == [3.0, 3.0]
    assert table["metric_at_budget"].tolist() == pytest.approx([0.6, math.nan], nan_ok=True)


# the summary


def test_summary_pairs_by_seed():
    rows = [
        (keys("fedavg", 0, final=0.90, up=100, down=100), rounds([0.90])),
        (keys("fedavg", 1, final=0.80, up=300, down=100), rounds([0.80])),
        (keys("feddip", 0, final=0.88, up=20, down=20, own=0.7), rounds([0.88])),  # ratio 0.2, difference -0.02
        (keys("feddip", 1, final=0.84, up=100, down=60, own=0.4), rounds([0.84])),  # ratio 0.4, difference +0.04
    ]
    summary = summarise(run_table(rows), {"feddip": "density = 0.1"}).set_index("variant")
    assert list(summary.reset_index().columns) == list(columns.SUMMARY)
    fedavg, feddip = summary.loc["fedavg"], summary.loc["feddip"]
    assert feddip["seeds"] == 2
    assert feddip["final_mean"] == pytest.approx(0.86)
    assert feddip["final_sd"] == pytest.approx(0.02 * math.sqrt(2))  # n - 1
    assert feddip["bytes_ratio"] == pytest.approx(0.3)  # the mean of the ratios, not the ratio of the means (200/600)
    assert feddip["final_diff"] == pytest.approx(0.01)
    assert feddip["final_diff_sd"] == pytest.approx(0.03 * math.sqrt(2))
    assert feddip["final_personal_diff"] == pytest.approx(0.05)  # +0.2 and -0.1
    assert feddip["final_personal_diff_sd"] == pytest.approx(0.15 * math.sqrt(2))
    assert feddip["bytes_up_mean"] == 60 and feddip["bytes_down_mean"] == 40
    assert feddip["overrides"] == "density = 0.1" and fedavg["overrides"] == ""
    assert fedavg["bytes_ratio"] == 1 and fedavg["final_diff"] == 0 and fedavg["final_diff_sd"] == 0


def test_summary_leaves_failed_and_unpaired_seeds_out_of_pairs():
    summary = summarise(
        run_table(
            [
                (keys("fedavg", 0, final=0.9), rounds([0.9])),
                (keys("fedavg", 1, final=0.1, status="failed"), rounds([0.9])),
                (keys("feddip", 0, final=0.8, up=50, down=50), rounds([0.9])),
                (keys("feddip", 1, final=0.6, up=100, down=50), rounds([0.9])),  # its FedAvg failed
                (keys("feddip", 2, final=0.0, status="interrupted"), rounds([])),
                (keys("broken", 0, status="failed"), rounds([])),
            ]
        )
    ).set_index("variant")
    assert list(summary["seeds"]) == [1, 2, 0]
    assert summary.loc["fedavg", "final_mean"] == 0.9
    assert summary.loc["feddip", "final_mean"] == pytest.approx(0.7)
    assert summary.loc["feddip", "bytes_ratio"] == 0.5
    assert summary.loc["feddip", "final_diff"] == pytest.approx(-0.1)
    assert math.isnan(summary.loc["feddip", "final_diff_sd"])  # one pair has no spread
    assert summary.loc["broken", ["final_mean", "bytes_ratio", "final_diff"]].isna().all()


def test_summary_without_a_global_metric_is_null_there_only():
    summary = summarise(
        run_table(
            [
                (keys("fedavg", 0, final=0.9), rounds([0.9])),
                (keys("personalized_masks", 0, final=math.nan, up=50, down=50), rounds([None])),
            ]
        )
    ).set_index("variant")
    row = summary.loc["personalized_masks"]
    assert row[["final_mean", "mb_to_target_mean", "final_diff"]].isna().all()
    assert row["final_personal_mean"] == 0.5 and row["bytes_ratio"] == 0.5


def test_mean_mb_to_target_needs_every_seed():
    rows = [(keys("fedavg", s, final=0.9), rounds([0.9])) for s in (0, 1)]
    rows += [(keys("feddip", 0), rounds([0.9])), (keys("feddip", 1), rounds([0.1]))]
    summary = summarise(run_table(rows)).set_index("variant")
    assert summary.loc["fedavg", "mb_to_target_mean"] == 1.5
    assert math.isnan(summary.loc["feddip", "mb_to_target_mean"])


def test_summary_without_fedavg_compares_with_nothing():
    summary = summarise(run_table([(keys("feddip", 0), rounds([0.9]))]))
    assert summary.loc[0, ["bytes_ratio", "final_diff", "mb_to_target_mean"]].isna().all()
    assert len(summarise(run_table([]))) == 0


def test_baseline_is_the_variant_fedavg_else_the_first_of_that_strategy():
    table = run_table(
        [(keys("bn", strategy="fedavg"), rounds([1])), (keys("fedavg"), rounds([1])), (keys("a"), rounds([1]))]
    )
    assert set(baselines(table).values()) == {"fedavg"}
    assert set(baselines(table[table["variant"] != "fedavg"]).values()) == {"bn"}


def test_baseline_of_runs_of_several_folders_is_the_folders_own():
    table = run_table(
        [
            (keys("fedavg (x)", strategy="fedavg", source="x"), rounds([1])),
            (keys("fedavg (y)", strategy="fedavg", source="y"), rounds([1])),
            (keys("feddip", source="y"), rounds([1])),
            (keys("topk", source="z"), rounds([1])),
        ]
    )
    assert baselines(table) == {
        "fedavg (x)": "fedavg (x)",
        "fedavg (y)": "fedavg (y)",
        "feddip": "fedavg (y)",
        "topk": "fedavg (x)",
    }


# folders


def test_parquet_and_json_lines_read_the_same(tmp_path):
    closed = Run(write_run(tmp_path / "closed", variant="feddip", density=0.1))
    running = Run(write_run(tmp_path / "running", variant="feddip", density=0.1, closed=False))
    for name in columns.TABLES:
        pd.testing.assert_frame_equal(getattr(closed, name), getattr(running, name))
        assert list(getattr(closed, name).columns)[: len(columns.TABLES[name])] == list(columns.TABLES[name])
    assert "x_regrown" in closed.clients
    assert closed.clients["flops"].dtype == "float64" and closed.clients["flops"].isna().all()


def test_a_killed_run_has_its_numbers_and_a_half_written_line_is_left_out(tmp_path):
    folder = write_run(tmp_path / "killed", variant="feddip", rounds=20, played=7, closed=False)
    with open(folder / "rounds.jsonl", "a") as file:
        file.write('{"round": 8, "metr')
    run = load(folder)
    assert len(run.rounds) == 7
    assert run.summary["final"] == run.rounds["metric"].iloc[-1]
    assert run.summary["bytes_up"] == run.rounds["bytes_up"].sum() > 0
    assert run.summary["status"] == "running"
    (folder / "rounds.jsonl").unlink()
    assert load(folder).rounds.empty and load(folder).summary["bytes_up"] == 0


def test_written_comparison_comes_back_exactly(tmp_path):
    folders = write_runs(tmp_path, seeds=2, rounds=10)
    failed = write_run(
        tmp_path / "feddip-seed2", variant="feddip", seed=2, rounds=10, played=3, status="failed", why='a, "b"\nc'
    )
    runs = [Run(folder) for folder in [*folders, failed]]
    both = write_comparison(tmp_path, runs, {"feddip": "strategy.density = 0.1, x = 'y'"})
    assert isinstance(both, Comparison) and len(both.runs) == 7 and len(both.table) == 7
    expected = [*folders[:4], failed, *folders[4:]]  # by variant, then by seed
    assert [run.folder for run in both.runs] == expected
    finals = [Run(folder).summary["final"] for folder in expected]
    assert both.table["final"].tolist() == pytest.approx(finals, abs=0, rel=0, nan_ok=True)
    assert both.table["commit"].tolist() == ["0123456"] * 7  # text, not a number
    assert both.table["why"].iloc[4] == 'a, "b"\nc'
    assert json.loads(both.table["versions"].iloc[0])["torch"] == "2.13.0"
    assert both.table["mb_to_target"].iloc[0] > 0
    assert list(both.summary.columns) == list(columns.SUMMARY)
    assert both.summary["seeds"].tolist() == [2, 2, 2]
    assert both.summary["overrides"].tolist() == ["", "strategy.density = 0.1, x = 'y'", ""]
    assert not list(tmp_path.glob(".*"))


def test_a_comparison_that_was_killed_is_computed_from_its_runs(tmp_path):
    write_runs(tmp_path, seeds=1, rounds=10)
    write_run(tmp_path / "feddip-seed1", variant="feddip", seed=1, rounds=10, played=2, closed=False)
    both = load(tmp_path)
    assert isinstance(both, Comparison)
    assert [run.label for run in both.runs] == ["fedavg", "feddip", "feddip", "personalized_masks"]
    assert both.summary["seeds"].tolist() == [1, 1, 1]


def test_a_comparison_may_hold_the_table_alone(tmp_path):
    folders = write_runs(tmp_path / "whole", seeds=1, rounds=10)
    write_comparison(tmp_path / "whole", [Run(f) for f in folders])
    (tmp_path / "alone").mkdir()
    (tmp_path / "whole" / "comparison.csv").rename(tmp_path / "alone" / "comparison.csv")
    alone = load(tmp_path / "alone")
    assert alone.runs == [] and len(alone.summary) == 3


def test_a_comparison_of_an_older_version_is_measured_again(tmp_path):
    folders = write_runs(tmp_path, seeds=2, rounds=10)
    now = write_comparison(tmp_path, [Run(f) for f in folders], {"feddip": "density = 0.1"})
    expected = now.summary
    now.table.drop(columns=[*columns.AT_BUDGET, "budget"]).to_csv(tmp_path / "comparison.csv", index=False)
    newer = [name for name in columns.SUMMARY if "at_budget" in name or "personal_diff" in name]
    expected.drop(columns=[*newer, "budget"]).to_csv(tmp_path / "summary.csv", index=False)
    pd.testing.assert_frame_equal(load(tmp_path).summary, expected)
    assert expected["at_budget_mean"].notna().tolist() == [True, True, False]


def test_folders_from_before_the_clock_have_null_there(tmp_path):
    folders = write_runs(tmp_path, seeds=1, rounds=10)
    both = write_comparison(tmp_path, [Run(f) for f in folders])
    for name, table in (("comparison", both.table), ("summary", both.summary)):
        table.drop(columns=[c for c in table if c.startswith("sim_")]).to_csv(tmp_path / f"{name}.csv", index=False)
    old = pd.read_parquet(folders[0] / "rounds.parquet").drop(columns=["sim_seconds", "sim_wait"])
    old.to_parquet(folders[0] / "rounds.parquet", index=False)
    again = load(tmp_path)
    pd.testing.assert_frame_equal(again.table, both.table)
    pd.testing.assert_frame_equal(again.summary, both.summary)
    assert again.runs[0].rounds["sim_seconds"].isna().all() and math.isnan(again.runs[0].summary["sim_seconds"])


def test_a_run_that_goes_on_has_the_simulated_time_so_far(tmp_path):
    run = Run(write_run(tmp_path / "now", variant="feddip", rounds=9, played=4, closed=False, flops=1e9))
    assert run.summary["sim_seconds"] == pytest.approx(run.rounds["sim_seconds"].sum()) and len(run.rounds) == 4


def test_the_budget_of_a_killed_comparison_is_in_its_runs_configs(tmp_path):
    for folder in write_runs(tmp_path, seeds=1, rounds=10):
        with open(folder / "config.toml", "a") as file:
            file.write('\n[compare]\nbudget = "personalized_masks"\n')
    assert load(tmp_path).summary["budget"].tolist() == ["personalized_masks"] * 3
    (folder / "config.toml").write_text("not toml")
    with pytest.raises(InputError, match="config.toml"):
        load(tmp_path).summary  # noqa: B018


@pytest.mark.parametrize(("budget", "found"), [(None, "personalized_masks"), ("fedavg", "fedavg"), ("", "feddip")])
def test_the_budget_that_is_asked_for_comes_before_that_of_the_configs(tmp_path, budget, found):
    for folder in (folders := write_runs(tmp_path, seeds=1, rounds=10)):
        with open(folder / "config.toml", "a") as file:
            file.write('\n[compare]\nbudget = "personalized_masks"\n')
    both = write_comparison(tmp_path, [Run(folder) for folder in folders], budget=budget)
    assert both.table["budget"].tolist() == [found] * 3 == both.summary["budget"].tolist()


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_loading_what_is_neither_says_so(tmp_path, what):
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    if what == "file":
        path.write_text("x")
    with pytest.raises(InputError, match=what):
        load(path)


@pytest.mark.parametrize("name", ["run.json", "rounds.parquet", "rounds.jsonl"])
def test_a_damaged_file_is_named(tmp_path, name):
    folder = write_run(tmp_path / "run", variant="fedavg", closed=name != "rounds.jsonl")
    (folder / name).write_text("not what it should be\n")
    with pytest.raises(InputError, match=name):
        load(folder).rounds  # noqa: B018


# the final model


def _weights(folder: Path, prefix: str = "") -> None:
    import torch
    from safetensors.torch import save_file

    mask = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    tensors = {f"{prefix}fc.weight": torch.arange(1.0, 5).reshape(2, 2), f"{prefix}fc.weight.__mask__": mask}
    save_file(tensors, folder / "model.safetensors")


def test_model_needs_weights_and_a_global_model(tmp_path):
    folder = write_run(tmp_path / "run", variant="personalized_masks")
    with pytest.raises(InputError, match="no model.safetensors"):
        Run(folder).model()
    _weights(folder, "client/3/")
    with pytest.raises(InputError, match="'personalized_masks' has no global model"):
        Run(folder).model()
    with pytest.raises(InputError, match="no model of client 4"):
        Run(folder).model(client=4)


def test_stored_masks_are_told_from_weights(tmp_path):
    from fedsparse.results import _weights as read

    folder = write_run(tmp_path / "run", variant="feddip")
    for client in (None, 3):
        _weights(folder, "" if client is None else "client/3/")
        weights, masks = read(Run(folder), client)
        assert list(weights) == ["fc.weight"] and list(masks) == ["fc.weight"]
        assert masks["fc.weight"].count == 2 and masks["fc.weight"].dense().dtype.is_floating_point is False
