"""docs/ names what there is: links, columns, commands, configs and Python examples."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from fedsparse import cli, columns
from fedsparse.experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
READ = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def commands() -> Iterator[str]:
    """Every `fedsparse ...` of a bash block, one for each part of a line."""
    for page in READ:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                parts = [part.strip() for part in line.split("&&")]
                yield from (part for part in parts if part.startswith("fedsparse "))


def test_every_column_is_explained() -> None:
    text = (DOCS / "runs.md").read_text(encoding="utf-8")
    for table, fields in columns.TABLES.items():
        line = text[text.index(f"- `{table}`:") :].split("\n- ")[0].split("\n\n")[0]
        assert set(fields) <= set(re.findall(r"`(\w+)`", line)), table


def test_links_lead_somewhere() -> None:
    assert PAGES
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_table_is_that_of_the_quickstart() -> None:
    text = (DOCS / "table.md").read_text(encoding="utf-8")
    summary, table = (
        pd.read_csv(ROOT / "results" / "quickstart" / f"{name}.csv") for name in ("summary", "comparison")
    )
    personal = table.pivot(index="seed", columns="variant", values="final_personal")

    def percent(mean: float, sd: float, sign: str = "") -> str:
        return f"{100 * mean:{sign}.1f} ± {100 * sd:.1f}"

    for row in summary.itertuples():
        apart, base = personal[row.variant] - personal["fedavg"], row.variant == "fedavg"
        cells = [
            f"`{row.variant}`",
            percent(row.final_mean, row.final_sd),
            "-" if base else percent(row.final_diff, row.final_diff_sd, "+"),
            percent(row.final_personal_mean, row.final_personal_sd),
            "-" if base else percent(apart.mean(), apart.std(), "+"),
            f"{row.density_mean:.3f}",
            *(f"{count / 1e6:.1f}" for count in (row.bytes_up_mean, row.bytes_down_mean)),
            f"{100 * row.bytes_ratio:.1f}",
            "-" if pd.isna(row.mb_to_target_mean) else f"{row.mb_to_target_mean:.1f}",
        ]
        assert f"| {' | '.join(cells)} |" in text


def test_the_install_lines_are_those_of_the_readme() -> None:
    asked = [line for block in blocks(DOCS / "quickstart.md", "bash") for line in block.splitlines() if "pip " in line]
    assert len(asked) == 2
    readme = "\n".join(blocks(ROOT / "README.md", "bash"))
    assert [line for line in asked if line not in readme] == []


@pytest.fixture
def beside_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the reader has it: the source's configs, and the files that pages show."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for page in READ:
        text = page.read_text(encoding="utf-8")
        for name, block in re.findall(r'^```toml title="([^"]+)"\n(.*?)^```$', text, re.M | re.S):
            (tmp_path / name).write_text(block, encoding="utf-8")
    for block in blocks(ROOT / "CONTRIBUTING.md", "python"):
        for name in re.findall(r"^class (\w+)", block, re.M):
            file = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            (tmp_path / f"{file}.py").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolve(line: str) -> Any:
    """Parse a command as typer would, without running it, and resolve the experiment that it names, if any."""
    group: Any = typer.main.get_command(cli.app)
    args = shlex.split(line, comments=True)[1:]
    name, command, rest = group.resolve_command(group.make_context("fedsparse", list(args)), list(args))
    if "--help" in rest:
        return None
    given = command.make_context(name, rest).params
    if "config" not in given:
        return None
    runtime = {"name": given.get("runtime"), "workers": given.get("workers")}
    changes = {key: given[key] for key in ("seed", "clients") if given.get(key) is not None}
    changes["runtime"] = {key: value for key, value in runtime.items() if value is not None}
    compare = {"seeds": given.get("seeds"), "strategies": (given.get("strategies") or "").split(",")}
    changes["compare"] = {key: value for key, value in compare.items() if value not in (None, [""])}
    experiment = Experiment.load(given["config"], given.get("sets") or (), **changes)
    return experiment.variants() if name == "compare" else experiment


def test_every_command_is_one(beside_configs: Path) -> None:
    found = list(commands())
    assert len(found) > 8
    for line in found:
        try:
            resolve(line)
        except Exception as error:  # whatever it is, the page is wrong
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("line", ["run quickstart --sett rounds=2", "run quickstart --set round=2", "rum quickstart"])
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"sett|round|rum"):
        resolve(f"fedsparse {line}")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page one after the other; what it shows below a block as text is what that block prints."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    code = "\n".join(blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    for shown in re.findall(r"^```python\n(?:.*?)^```\n\n```text\n(.*?)^```$", text, re.M | re.S):
        assert shown in done.stdout
