"""Payloads as bytes: the format of FORMAT.md, and the only place that turns one into the other.

`decode(encode(payload, schema=schema), schema, max_bytes)` gives back the same values and masks, bit for bit.
`accumulate` makes the weighted sum of many payloads without ever holding one of them dense.
"""

from fedsparse.codec.accumulator import Sums, accumulate
from fedsparse.codec.container import FORMAT, Header, content, header, schema_hash, stamp
from fedsparse.codec.decoder import decode, decode_into
from fedsparse.codec.encoder import encode
from fedsparse.codec.inspection import Inspection, described, inspect
from fedsparse.codec.kernels import kernels_in_use
from fedsparse.codec.masks import mask_hash
from fedsparse.codec.structured import Seeded
from fedsparse.codec.wire import DecodeError, NotHeld, UnknownMask, UnknownReference

__all__ = [
    "FORMAT",
    "DecodeError",
    "Header",
    "Inspection",
    "NotHeld",
    "Seeded",
    "Sums",
    "UnknownMask",
    "UnknownReference",
    "accumulate",
    "content",
    "decode",
    "decode_into",
    "described",
    "encode",
    "header",
    "inspect",
    "kernels_in_use",
    "mask_hash",
    "schema_hash",
    "stamp",
]
