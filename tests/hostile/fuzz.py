"""Mutated payloads against the compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in every tier.

    python tests/hostile/fuzz.py --seconds 600

Compiles the kernels with both sanitizers into a temporary folder (GCC or Clang on Linux; Python itself is not
instrumented) and starts a process a core, two at most. All arrays that a kernel is given are copied to memory that ends
where they end, so that a read of one byte more is seen. Prints what was refused and accepted; exits with 1 where
anything but a payload or a DecodeError came out, and leaves the bytes that did it in the folder that it names.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "fedsparse" / "codec"
MODULE = "fedsparse.codec._kernels"
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]
MARK = "fuzz result: "


def build(folder: Path) -> Path:
    """The kernels with sanitizers: the path of the module."""
    module, source = folder / f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}", folder / "_kernels.c"
    subprocess.run([sys.executable, "-m", "cython", "-3", str(SOURCE / "_kernels.pyx"), "-o", str(source)], check=True)
    include = f"-I{SOURCE}", f"-I{sysconfig.get_path('include')}"
    flags = "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-w", *CHECKS
    subprocess.run([compiler(), *flags, *include, str(source), "-o", str(module)], check=True)
    return module


def compiler() -> str:
    return os.environ.get("CC", "cc")


def sanitizer() -> str:
    """The library that must be in the process before Python is."""
    name = "libasan.so"
    found = subprocess.run([compiler(), f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def tiers(module: Path) -> list[str]:
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import fuzz; fuzz.use({str(module)!r}); "
    code += f"import importlib; print(*importlib.import_module({MODULE!r}).TIERS)"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment("c"), check=True, capture_output=True, text=True
    )
    return found.stdout.split()


def environment(tier: str) -> dict[str, str]:
    return os.environ | {
        "LD_PRELOAD": sanitizer(),
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=1:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FEDSPARSE_ISA": tier,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


# ---- one process ----


def use(module: str) -> None:
    """Let this file be the compiled kernels."""

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return importlib.util.spec_from_file_location(MODULE, module) if name == MODULE else None

    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def tightened(function: Callable[..., Any], rng: random.Random) -> Callable[..., Any]:
    """The kernel, given copies of its inputs that end where their memory ends, at any alignment."""
    from fedsparse.codec.reference import Planes

    def tight(it: Any) -> Any:
        if isinstance(it, Planes):
            return Planes(*map(tight, it))
        if isinstance(it, list | tuple):
            return type(it)(map(tight, it))
        if not isinstance(it, np.ndarray) or it.flags.writeable and function.__name__ in WRITERS:
            return it
        ahead = rng.choice((0, 0, 1, 3))
        memory = np.empty(it.nbytes + ahead, np.uint8)
        memory[ahead:] = it.reshape(-1).view(np.uint8)
        return memory[ahead:].view(it.dtype)

    return lambda *arguments: function(*map(tight, arguments))


WRITERS = ("expand", "decode32", "accumulate32")  # these are given arrays to write into


def work(seed: int, seconds: float, last: Path) -> dict[str, Any]:
    """Damages payloads until the time is over; `last` holds the bytes that are being read."""
    sys.path.insert(0, str(HERE.parent))
    from hostile import mutations

    from fedsparse.codec import kernels

    rng = random.Random(seed)
    for name in [name for name in vars(kernels._module) if name in vars(kernels) and name.islower() and name[0] != "_"]:
        if callable(getattr(kernels, name)):
            setattr(kernels, name, tightened(getattr(kernels, name), rng))
    pool = [sample for i in range(3) for sample in mutations.samples(3 * seed + i).values()]
    counts = {"payloads": 0, "accepted": 0, "refused": 0, "errors": 0}
    memory, end = os.open(last, os.O_RDWR | os.O_CREAT), time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(200):
            sample = rng.choice(pool)
            data = mutations.mutated(rng, sample.data, rng.choice(pool).data)
            os.pwrite(memory, data, 0)
            os.ftruncate(memory, len(data))
            read = rng.choice(("decode", "decode_into", *["accumulate"] * sample.summable))
            counts["payloads"] += 1
            try:
                counts["accepted" if mutations.survives(sample, data, read) else "refused"] += 1
            except Exception:
                counts["errors"] += 1
                shutil.copy(last, last.with_name(f"{last.name}-{counts['payloads']}-{read}"))
                traceback.print_exc()
    return {"tier": kernels.kernels_in_use(), "peak_mb": peak_mb(), **counts}


def peak_mb() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# ---- all of them ----


def start(module: Path, tier: str, seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    last = folder / f"{tier}-{seed}"
    command = [sys.executable, __file__, "--worker", str(module), str(seed), str(seconds), str(last)]
    done = subprocess.run(command, env=environment(tier), capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode or not lines:
        print(f"{tier} ended with {done.returncode}, its last payload is {last}", file=sys.stderr)
        return {"tier": tier, "payloads": 0, "accepted": 0, "refused": 0, "errors": 1}
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    print(result, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of the whole run")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="another one, other mutations")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        module, seed, seconds, last = given.worker
        use(module)
        print(MARK + json.dumps(work(int(seed), float(seconds), Path(last))))
        return
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    module = build(folder)
    found, processes = tiers(module), min(2, os.cpu_count() or 1)
    each = given.seconds / len(found)
    print(f"seed {given.seed}, tiers {', '.join(found)}, {processes} processes, {folder}", flush=True)
    jobs = [(tier, given.seed + i) for tier in found for i in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        results = list(pool.map(lambda job: start(module, *job, each, folder), jobs))
    total = {key: sum(result[key] for result in results) for key in ("payloads", "accepted", "refused", "errors")}
    print("all:", total)
    if total["errors"]:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
