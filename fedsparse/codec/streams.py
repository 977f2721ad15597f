"""Coded streams: the symbols of many tensors one after the other, cut into blocks that zstd makes smaller where it can.

Small layers share a block, so that they share its Huffman table; a large layer has its own.
The traps of the `zstandard` package: its one-shot `decompress` trusts the size that a frame states, and by default
ignores what follows the frame. So a frame's parameters are read and compared before it is decoded.
"""

from __future__ import annotations

import threading

import zstandard

from fedsparse.codec.container import Block
from fedsparse.codec.wire import Buffer, DecodeError

BITMAP, GAPS, CODES4, CODES2, CODES1, PLANES, INT8, INT4, NM = range(9)
NAMES = dict(enumerate(("bitmap", "gaps", "codes of 4 bits", "codes of 2 bits", "codes of 1 bit", "planes", "int8",
                        "int4", "n:m")))  # fmt: skip
STORED, ZSTD = 0, 1
BLOCK = 16384  # a block ends with the tensor that makes it this long
SHORTEST = 4096  # a block that is not its stream's last may not be shorter: many tiny ones would only cost time
SMALLEST = 24  # fewer bytes than this zstd cannot make fewer
WINDOW_LOG = 18

# Next to nothing but zstd's Huffman stage: its match finder makes symbols like these bigger and slower.
_PARAMETERS = zstandard.ZstdCompressionParameters(
    compression_level=1,
    strategy=zstandard.STRATEGY_FAST,
    target_length=0,
    hash_log=6,
    min_match=7,
    window_log=WINDOW_LOG,
    write_content_size=True,
    write_checksum=False,
    write_dict_id=False,
)


class _Tools(threading.local):
    """zstd's contexts are for one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_PARAMETERS)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)


_tools = _Tools()


def write(streams: dict[int, list[Buffer]]) -> tuple[list[Block], list[Buffer]]:
    """The blocks of all streams, and their bytes."""
    blocks: list[Block] = []
    coded: list[Buffer] = []
    for stream in sorted(streams):
        for piece in _cut(streams[stream]):
            small: Buffer = _tools.compressor.compress(piece) if len(piece) >= SMALLEST else piece
            coding = ZSTD if len(small) < len(piece) else STORED
            coded.append(small if coding == ZSTD else piece)
            blocks.append(Block(stream, coding, len(piece), len(coded[-1])))
    return blocks, coded


def _cut(symbols: list[Buffer]) -> list[Buffer]:
    pieces: list[Buffer] = []
    waiting: list[Buffer] = []
    size = 0
    for part in symbols:
        waiting.append(part)
        size += len(part)
        if size >= BLOCK:
            pieces.append(_joined(waiting))
            waiting, size = [], 0
    return [*pieces, _joined(waiting)] if size else pieces


def _joined(parts: list[Buffer]) -> Buffer:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check(blocks: list[Block], expected: dict[int, int]) -> None:
    """All blocks are of known kinds, and give each stream the length that the table expects of it."""
    found = dict.fromkeys(expected, 0)
    for i, block in enumerate(blocks):
        if block.stream not in NAMES:
            raise DecodeError(f"unknown stream {block.stream}")
        if block.coding not in (STORED, ZSTD):
            raise DecodeError(f"unknown coding {block.coding} of the stream {NAMES[block.stream]}")
        last = i + 1 == len(blocks) or blocks[i + 1].stream != block.stream
        if block.raw < (1 if last else SHORTEST) or (block.coding == STORED and block.raw != block.coded):
            raise DecodeError(f"a block of the stream {NAMES[block.stream]} has impossible lengths")
        found[block.stream] = found.get(block.stream, 0) + block.raw
    for stream, length in found.items():
        taken = expected.get(stream, 0)
        if length != taken:
            raise DecodeError(f"the stream {NAMES[stream]} has {length} bytes, its tensors take {taken}")


def read(block: Block, coded: memoryview) -> Buffer:
    """The symbols of one block; memory for them is taken only when the frame states the length that was checked."""
    if block.coding == STORED:
        return coded
    what = f"the zstd frame of the stream {NAMES[block.stream]}"
    try:
        frame = zstandard.get_frame_parameters(coded)
        if frame.content_size != block.raw or frame.dict_id or frame.window_size > max(block.raw, 1 << WINDOW_LOG):
            raise DecodeError(f"{what} states other sizes than the payload")
        symbols = _tools.decompressor.decompress(coded, max_output_size=block.raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError(f"{what} cannot be decoded ({error})") from None
    if len(symbols) != block.raw:
        raise DecodeError(f"{what} is shorter than it states")
    return symbols
