"""What a code will make of bytes, about: in integers, so that every machine chooses alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LOG2_SCALE = 256
LOG2 = np.array([0] + [round(LOG2_SCALE * math.log2(i)) for i in range(1, 512)], np.int64)
WIDTHS = (1, 2, 4)  # bits of an exponent's code


def cost(symbols: np.ndarray) -> int:
    """About what a Huffman code makes of these bytes, in 1/256 bits: integers, so that every machine chooses alike."""
    counts = np.bincount(symbols, minlength=256)
    counts = counts[counts > 0]
    if counts.size < 2:
        return 16 * LOG2_SCALE
    total, first = symbols.size, int(counts.max())
    bits = -int((counts * _log2(counts)).sum())
    if 2 * first > total:  # a code spends a whole bit on the commonest symbol, however common it is
        bits += first * _log2(first) + total * LOG2_SCALE
        total -= first
    bits += total * _log2(total)
    bits += counts.size * LOG2_SCALE * 4  # the table: about half a byte a symbol
    return int(min(bits, symbols.size * 8 * LOG2_SCALE))


def _log2(numbers: Any) -> Any:
    shift = np.maximum(np.frexp(np.float64(numbers))[1] - 9, 0)
    return LOG2[numbers >> shift] + LOG2_SCALE * shift


def plan(values: np.ndarray) -> tuple[int, int, int, int]:
    """How `split` takes these float32 values (uint32, one at least) apart best: (bits, width, top, low).

    `bits` is about what the codes and escapes take.
    """
    counts = np.bincount(values >> 23 & 0xFF, minlength=256)
    top = int(counts.nonzero()[0][-1])
    bits, width = min((_codes(counts[top::-1], width), width) for width in WIDTHS)
    mantissa = int(np.bitwise_or.reduce(values)) & 0x7FFFFF
    zeros = 16 if not mantissa else min((mantissa & -mantissa).bit_length() - 1, 16)
    return bits, width, top, 16 - zeros


def _codes(counts: np.ndarray, width: int) -> int:
    """About how many bits codes of this width take; counts[i]: of the exponents that are i below the top."""
    largest = (1 << width) - 1
    escaped = int(counts[largest:].sum())
    numbers = np.array([*counts[:largest], escaped])
    total = int(numbers.sum())
    entropy = (total * int(_log2(total)) - int((numbers * _log2(numbers)).sum())) // LOG2_SCALE
    return max(entropy, total * width // 8) + 8 * escaped  # a Huffman code spends a bit on a byte at least
