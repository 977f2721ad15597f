"""The alphabet of the format: its errors, varints and short texts (little-endian throughout)."""

from __future__ import annotations

import operator
from typing import Any

Buffer = Any  # bytes, bytearray, memoryview: whatever holds bytes

VARINT_BYTES = 10  # a 64-bit number, seven bits a byte
LARGEST = (1 << 64) - 1


class DecodeError(ValueError):
    """Bytes that are no payload, or not one that this receiver accepts. `tensor` is the tensor at fault, if one is."""

    def __init__(self, reason: str, tensor: str | None = None):
        super().__init__(reason if tensor is None else f"tensor {tensor!r}: {reason}")
        self.tensor = tensor


class NotHeld(DecodeError):
    """The sender relied on something that this receiver does not hold, or holds in another state: it must send all."""


class UnknownMask(NotHeld):
    """A payload relies on a known mask that this receiver does not hold."""


class UnknownReference(NotHeld):
    """A payload relies on a reference that this receiver does not hold."""


def octets(data: Buffer) -> memoryview:
    """The bytes of any buffer, one after the other; a copy only where they are not contiguous."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    return memoryview(view.tobytes())


def word(number: Any, what: str) -> int:
    """The lowest 64 bits of any integer."""
    try:
        return operator.index(number) & LARGEST
    except TypeError:
        raise ValueError(f"{what} is {number!r}, needed is an integer") from None


def put_varint(out: bytearray, value: int) -> None:
    """Append `value` in its shortest form: seven bits a byte, lowest first, the top bit says that more follow."""
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{value} does not fit into 64 bits")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_text(out: bytearray, text: str, cap: int) -> None:
    """Append the length and the UTF-8 bytes of `text`, of which there may be `cap` at most."""
    try:
        raw = text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(f"{text!r} is not a text of UTF-8") from None
    if len(raw) > cap:
        raise ValueError(f"{text[:40]!r}... has {len(raw)} bytes, at most {cap} are allowed")
    put_varint(out, len(raw))
    out += raw


class Reader:
    """Walks through bytes from `pos` up to `end`, and refuses to look beyond."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: memoryview, pos: int, end: int):
        self.data, self.pos, self.end = data, pos, end

    def byte(self) -> int:
        if self.pos >= self.end:
            raise DecodeError("the payload ends inside its table")
        self.pos += 1
        return self.data[self.pos - 1]

    def varint(self) -> int:
        first = self.byte()
        if first < 0x80:
            return first
        value, shift = first & 0x7F, 7
        while shift < 7 * VARINT_BYTES:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if byte == 0 or value > LARGEST:
                    raise DecodeError("a number is not in its shortest form, or larger than 64 bits")
                return value
        raise DecodeError(f"a number is longer than {VARINT_BYTES} bytes")

    def take(self, length: int) -> memoryview:
        if length > self.end - self.pos:
            raise DecodeError(f"{length} bytes were promised where {self.end - self.pos} are left")
        self.pos += length
        return self.data[self.pos - length : self.pos]

    def text(self, cap: int) -> str:
        length = self.varint()
        if length > cap:
            raise DecodeError(f"a text of {length} bytes where {cap} are allowed")
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError:
            raise DecodeError("a text is not UTF-8") from None
