"""The codec's share of a run: `python benchmarks/codec_share.py [--rounds 10] [--set KEY=VALUE ...]`.

Runs the quickstart's strategies in this process, with training, evaluation and everything else that a round does, and
adds up the CPU time inside the codec: encode, decode, stamp, inspect, header, on both sides.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fedsparse as fs
from fedsparse import codec, ledger

INSIDE = ("encode", "decode", "stamp", "inspect", "header", "schema_hash")
spent: Counter[str] = Counter()
calls: Counter[str] = Counter()
depth = 0


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, its CPU time added to `spent` unless it is inside of another one."""

    def outer(*args: Any, **kwargs: Any) -> Any:
        global depth
        depth += 1
        began = time.process_time()
        try:
            return call(*args, **kwargs)
        finally:
            depth -= 1
            if not depth:
                spent[name] += time.process_time() - began
                calls[name] += 1

    return outer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in INSIDE:
        setattr(codec, name, timed(name, getattr(codec, name)))
    ledger.inspect = codec.inspect  # it was imported by its name
    print(f"kernels: {codec.kernels_in_use()}")
    for strategy in ("fedavg", "feddip", "personalized_masks"):
        spent.clear()
        calls.clear()
        changes = [f"rounds={options.rounds}", f"strategy={strategy}", *options.set]
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            fs.run("quickstart", sets=changes, runtime="local", out=Path(folder) / "run")
            whole = time.process_time() - began
        parts = ", ".join(f"{name} {1e3 * spent[name] / calls[name]:.3f} ms x {calls[name]}" for name in spent)
        print(f"{strategy:20} {whole:6.2f} s, codec {sum(spent.values()) / whole:.1%}: {parts}")


if __name__ == "__main__":
    main()
