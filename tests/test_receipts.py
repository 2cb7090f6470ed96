"""A receipt's parts make up its file, byte for byte, or it is not believed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from exportapp.datasets import RowRule
from exportapp.engine.specs import FileResult, PieceResult, Recipe
from exportapp.receipts import CHUNKED, SNAPSHOT, claims, mistakes, receipt

PIECES = (b"1\n2\n", b"", b"333\n", b"4\n5\n6\n")
CONTENT = b"".join(PIECES)


def piece(content: bytes) -> PieceResult:
    return PieceResult("piece", content.count(b"\n"), len(content), hashlib.sha256(content).hexdigest())


def made(*contents: bytes, **more: Any) -> dict[str, Any]:
    whole = piece(b"".join(contents))
    file = FileResult("file", whole.rows, whole.bytes, whole.sha256)
    return receipt(
        Recipe("orders", ("id",)), [piece(one) for one in contents], file, read_from="", read_until="", **more
    )


def found(content: bytes, said: dict[str, Any], block: int = 3) -> list[str]:
    blocks = [content[start : start + block] for start in range(0, len(content), block)]
    return mistakes(blocks, claims(said))


@pytest.mark.parametrize("block", [1, 3, 4, 5, 100])
def test_file_is_the_one_of_its_receipt_however_it_is_read(block: int) -> None:
    assert found(CONTENT, made(*PIECES), block) == []


def test_empty_file_has_a_receipt_too() -> None:
    assert found(b"", made(b"")) == []
    assert found(b"x", made(b"")) == [
        "The file has 1 bytes, its receipt says 0.",
        "The file's SHA-256 is not the one of its receipt.",
    ]


@pytest.mark.parametrize("block", [1, 3, 100])
def test_part_that_differs_is_named(block: int) -> None:
    assert found(CONTENT.replace(b"333", b"373"), made(*PIECES), block) == [
        "The file's SHA-256 is not the one of its receipt.",
        "What differs is among the bytes from 4 to 8.",
    ]


def test_parts_that_were_exchanged_are_named() -> None:
    assert found(PIECES[3] + PIECES[2] + PIECES[0], made(*PIECES))[1:] == [
        "What differs is among the bytes from 0 to 4.",
        "What differs is among the bytes from 4 to 8.",
        "What differs is among the bytes from 8 to 14.",
    ]


@pytest.mark.parametrize(
    ("part", "field", "value", "sentence"),
    [
        (0, "from", 1, "no part begins at byte 0, but one at 1."),
        (2, "from", 3, "no part begins at byte 4, but one at 3."),
        (2, "from", 5, "no part begins at byte 4, but one at 5."),
        (3, "bytes", 7, "14 bytes in all, 15 in its parts."),
        (3, "rows", 9, "6 rows in all, 12 in its parts."),
    ],
)
def test_receipt_that_contradicts_itself_is_not_believed(part: int, field: str, value: int, sentence: str) -> None:
    said = made(*PIECES)
    said["parts"][part][field] = value
    assert f"Its receipt contradicts itself: {sentence}" in found(CONTENT, said)


def test_part_left_out_is_found() -> None:
    for part in (0, 2, 3):
        said = made(*PIECES)
        del said["parts"][part]
        assert found(CONTENT, said) != []


def test_receipt_says_once_how_consistent_it_is_and_does_not_repeat_the_wish() -> None:
    for contents, consistency in (((CONTENT,), SNAPSHOT), (PIECES, CHUNKED)):
        said = made(*contents)
        assert said["consistency"] == consistency
        assert "consistency" not in said["recipe"]


def test_receipt_names_whose_rights_it_was_made_with() -> None:
    assert {"user", "row_rule"}.isdisjoint(made(CONTENT))
    said = made(CONTENT, user="alice", rule=RowRule("country", "region"))
    assert said["user"] == "alice"
    assert said["row_rule"] == "only rows whose country is among the user's values of region"
