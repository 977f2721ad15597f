"""Info: named scalars, each with its type."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from fedsparse.codec.container import count
from fedsparse.codec.wire import DecodeError, Reader, put_text, put_varint
from fedsparse.payload import Scalar

FALSE, TRUE, INT, FLOAT, TEXT = range(5)  # types on the wire
KEY_CAP, TEXT_CAP, INFO_CAP = 255, 65536, 1024


def put(out: bytearray, info: Mapping[str, Scalar]) -> None:
    if len(info) > INFO_CAP:
        raise ValueError(f"info has {len(info)} entries, at most {INFO_CAP} are allowed")
    for key in info:
        if not isinstance(key, str):
            raise ValueError(f"info has the key {key!r}, which is no text")
    put_varint(out, len(info))
    for key in sorted(info):
        put_text(out, key, KEY_CAP)
        value = info[key]
        _put_scalar(out, key, value.item() if isinstance(value, np.generic) else value)


def _put_scalar(out: bytearray, key: str, value: Scalar) -> None:
    if isinstance(value, bool):
        out.append(TRUE if value else FALSE)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"info {key!r} is {value}, which does not fit into 64 bits")
        out.append(INT)
        put_varint(out, value << 1 if value >= 0 else ~(value << 1))
    elif isinstance(value, float):
        out.append(FLOAT)
        out += struct.pack("<d", value)
    elif isinstance(value, str):
        out.append(TEXT)
        put_text(out, value, TEXT_CAP)
    else:
        raise ValueError(f"info {key!r} is a {type(value).__name__}, allowed are bool, int, float and str")


def read(reader: Reader) -> dict[str, Scalar]:
    info: dict[str, Scalar] = {}
    last = None
    for _ in range(count(reader, "info entries", INFO_CAP)):
        key = reader.text(KEY_CAP)
        if last is not None and key <= last:
            raise DecodeError(f"info {key!r} is not in order, or there twice")
        info[key] = _read_scalar(reader, key)
        last = key
    return info


def _read_scalar(reader: Reader, key: str) -> Scalar:
    kind = reader.byte()
    if kind in (FALSE, TRUE):
        return kind == TRUE
    if kind == INT:
        number = reader.varint()
        return number >> 1 if not number & 1 else ~(number >> 1)
    if kind == FLOAT:
        return float(struct.unpack("<d", reader.take(8))[0])
    if kind == TEXT:
        return reader.text(TEXT_CAP)
    raise DecodeError(f"info {key!r} has the unknown type {kind}")
