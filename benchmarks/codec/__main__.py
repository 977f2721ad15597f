"""The codec beside its limits and beside every rival, in one process and one thread.

    pip install -e '.[bench]'
    python benchmarks/codec/nets.py           # once: trains the two real nets, for an hour
    python benchmarks/codec --out bench       # or --quick: an eighth of the elements, a minute

Writes tables.md, figure.png and results.json into the folder. What is measured is divided into parts (`--list`); with
`--only` some of them are measured again, the others stay as results.json has them. How it is measured:
`fedsparse/codec/bench.py`.
"""

from __future__ import annotations

import os

for _variable in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLOSC_NTHREADS",
    "NUMEXPR_NUM_THREADS",
):
    os.environ[_variable] = "1"  # before the libraries that read them

import argparse  # noqa: E402
import json  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import asdict  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import aggregation  # noqa: E402
import figure  # noqa: E402
import knowledge  # noqa: E402
import nets  # noqa: E402
import real  # noqa: E402
import rivals  # noqa: E402
import torch  # noqa: E402

from fedsparse import (  # noqa: E402
    bench,  # noqa: E402
    codec,
    folder,
)
from fedsparse.bench import LIMITS, Measured, Sample  # noqa: E402
from fedsparse.payload import Absent  # noqa: E402

RIVALLED = ("1 %", "5 %", "10 %", "20 %")
QUICK = 1 << 20
Found = dict[str, Any]


def parts(elements: int, rounds: int, cache: Path) -> dict[str, Callable[[], Any]]:
    """What can be measured, by name; each gives something that JSON can hold."""
    reference_rounds = 5 if elements > QUICK else 2
    found: dict[str, Callable[[], Any]] = {}
    found |= {f"ratios {kind}": partial(alone, kind, elements, rounds) for kind in LIMITS}
    found |= {f"accumulate {kind}": partial(accumulated, kind, elements, rounds) for kind in aggregation.LIMITS}
    found["accumulate known"] = partial(accumulated, "10 %", elements, rounds, known=True)
    found |= {f"rivals {kind}": partial(beside, kind, elements, rounds) for kind in RIVALLED}
    found["knowledge mask"] = knowledge.known_mask
    found["knowledge difference"] = partial(knowledge.mask_difference, elements)
    found |= {f"knowledge {net}": partial(knowledge.given_reference, net, reference_rounds) for net in knowledge.NETS}
    found |= {f"net {net}": partial(real.sizes, cache, net) for net in nets.MODELS}
    found["overhead"] = partial(real.overheads, 4 * rounds)
    return found


def alone(kind: str, elements: int, rounds: int) -> list[Found]:
    return [asdict(bench.ratios(kind, elements, rounds))]


def accumulated(kind: str, elements: int, rounds: int, known: bool = False) -> list[Found]:
    ways: tuple[Absent, ...] = ("zero",) if known or kind == "100 %" else ("zero", "unheld")
    return [asdict(aggregation.measure(kind, elements, rounds // 2, known, absent)) for absent in ways]


def beside(kind: str, elements: int, rounds: int) -> list[Found]:
    sample = Sample.draw(kind, elements)
    return [asdict(m) for m in bench.measure(sample, [*rivals.METHODS, bench.into(sample)], min(rounds, rivals.ROUNDS))]


def document(found: Found) -> str:
    """All tables as Markdown, of the parts that are there."""
    pieces = ["# The codec, measured", "", __doc__.partition("\n")[0], ""]
    pieces += sorted({f"{part['elements']:,} elements; {part['host']}; {part['kernels']}" for part in found.values()})
    for heading, prefix, table in TABLES:
        results = [part["found"] for name, part in found.items() if name.startswith(prefix)]
        if results:
            pieces += ["", f"## {heading}", "", table(results)]
    return "\n".join(pieces) + "\n"


def measured(results: list[list[Found]]) -> list[Measured]:
    return [Measured(**each) for part in results for each in part]


TABLES: list[tuple[str, str, Callable[[list[Any]], str]]] = [
    ("Alone, beside its limits", "ratios ", lambda results: bench.ratio_table(measured(results))),
    ("The sum of 8 clients", "accumulate ", aggregation.table),
    ("What the receiver knows", "knowledge ", knowledge.table),
    ("Real nets, pruned to 10 %", "net ", real.net_table),
    ("Small tensors", "overhead", lambda results: real.overhead_table(results[0])),
    ("Beside the others", "rivals ", lambda results: bench.rival_table(measured(results))),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/codec", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench"), help="the folder that is written")
    parser.add_argument("--cache", type=Path, default=nets.CACHE, help="where nets.py has put the nets")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="a part, or how parts begin")
    parser.add_argument("--quick", action="store_true", help="1M elements and few repetitions")
    parser.add_argument("--list", action="store_true", help="print the parts' names, measure nothing")
    options = parser.parse_args()
    elements, rounds = (QUICK, 5) if options.quick else (bench.ELEMENTS, bench.ROUNDS)
    torch.set_num_threads(1)
    every = parts(elements, rounds, options.cache)
    wanted = [name for name in every if not options.only or name.startswith(tuple(options.only))]
    if options.list or not wanted:
        print("\n".join(every))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    kept: Found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    about = {"host": folder.host(), "kernels": codec.kernels_in_use(), "elements": elements}
    for name in wanted:
        print(name, flush=True)
        kept[name] = about | {"found": every[name]()}
        ordered = {name: kept[name] for name in every if name in kept}  # as a whole run would have them
        file.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    text = document(ordered)
    (options.out / "tables.md").write_text(text, encoding="utf-8")
    if rivalled := measured([part["found"] for name, part in ordered.items() if name.startswith("rivals ")]):
        figure.draw(rivalled, options.out / "figure.png")
    print(text)


if __name__ == "__main__":
    main()
