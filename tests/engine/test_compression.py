"""Compressions: streams that join by concatenation, read back by Python's own gzip and by zstandard's reader."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable

import pytest
import zstandard

from exportapp.engine.compression import COMPRESSIONS


def read_zstd(data: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    return reader.read()


READ: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "gzip": gzip.decompress, "zstd": read_zstd}
BLOCKS = [b"", b"id,name\r\n" * 5000, random.Random(1).randbytes(100_000), b"x"]


def compressed(name: str, *blocks: bytes) -> bytes:
    stream = COMPRESSIONS[name].open()
    return b"".join(map(stream.compress, blocks)) + stream.finish()


@pytest.fixture(params=COMPRESSIONS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_byte_comes_back(name: str) -> None:
    assert READ[name](compressed(name, *BLOCKS)) == b"".join(BLOCKS)


def test_streams_join_by_concatenation(name: str) -> None:
    assert READ[name](b"".join(compressed(name, block) for block in BLOCKS)) == b"".join(BLOCKS)


def test_nothing_is_a_stream_too(name: str) -> None:
    assert READ[name](compressed(name)) == b""


def test_the_same_input_gives_the_same_bytes(name: str) -> None:
    assert compressed(name, *BLOCKS) == compressed(name, *BLOCKS)


def test_gzip_holds_no_time_and_no_name() -> None:
    assert compressed("gzip", b"x")[3:8] == bytes(5)  # RFC 1952: flags and MTIME


def test_gzip_makes_it_smaller() -> None:
    assert len(compressed("gzip", BLOCKS[1])) < len(BLOCKS[1]) / 20
