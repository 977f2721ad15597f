"""Payloads as bytes: the format of FORMAT.md, and the only place that turns one into the other.

`decode(encode(payload, schema=schema), schema, max_bytes)` gives back the same values and masks, bit for bit.
"""

from fedsparse.codec.container import FORMAT, Header, content, header, schema_hash, stamp
from fedsparse.codec.decoder import decode
from fedsparse.codec.encoder import encode
from fedsparse.codec.inspection import Inspection, inspect
from fedsparse.codec.kernels import kernels_in_use
from fedsparse.codec.masks import mask_hash
from fedsparse.codec.wire import DecodeError, UnknownMask

__all__ = [
    "FORMAT",
    "DecodeError",
    "Header",
    "Inspection",
    "UnknownMask",
    "content",
    "decode",
    "encode",
    "header",
    "inspect",
    "kernels_in_use",
    "mask_hash",
    "schema_hash",
    "stamp",
]
