"""Specs travel as JSON between processes and versions, and arrive as what they were."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import pytest

from exportapp.engine import specs
from exportapp.engine.specs import (
    ChunkSpec,
    Column,
    Condition,
    FileOptions,
    FileResult,
    KeyRange,
    PieceResult,
    Plan,
    Query,
    Recipe,
    RecipeFilter,
    from_json,
    to_json,
)

PRICE = Column("price", "decimal", 2)
CONDITION = Condition(PRICE, "in", ("1.50", "größer 🦀", ""))
QUERY = Query("SELECT 1", True, (PRICE, Column("id")), (Column("id", "integer"),), (CONDITION,))
RANGE = KeyRange((-1, "a", "ff00"), (1 << 64, "ü"))
FILTER = RecipeFilter("price", "between", ("1", ""))
EXAMPLES = [
    PRICE, CONDITION, QUERY, RANGE, FILTER, KeyRange(), KeyRange(upto=(0,)), Query("t", False, ()),
    Plan((RANGE, KeyRange()), 12, False), ChunkSpec(QUERY, RANGE, "csv", "gzip", "a/b", True, "export=1", 2.5),
    FileOptions("names", ";", True, "NULL", True),
    PieceResult("a/1", 3, 4, "ab", (7, "x")), PieceResult("a/1", 0, 0, "ab"), FileResult("a", 1, 2, "ab"),
    Recipe("orders", ("id", "price"), "jsonl", "gzip", "2024-01-01", "", "Europe/Berlin", (FILTER,)), Recipe("orders", ()),
]  # fmt: skip


def test_every_kind_of_spec_has_an_example() -> None:
    kinds = {kind for _, kind in inspect.getmembers(specs, dataclasses.is_dataclass)}
    assert {type(example) for example in EXAMPLES} == kinds


@pytest.mark.parametrize("spec", EXAMPLES, ids=lambda spec: type(spec).__name__)
def test_a_spec_survives_json(spec: Any) -> None:
    arrived = from_json(type(spec), json.loads(json.dumps(to_json(spec))))
    assert arrived == spec
    assert hash(arrived) == hash(spec)  # a list somewhere inside would have none


def test_what_a_newer_version_added_is_ignored_at_every_depth() -> None:
    data = json.loads(json.dumps(to_json(QUERY)))
    for part in (data, data["columns"][0], data["conditions"][0], data["conditions"][0]["column"]):
        part["invented"] = {"later": [1]}
    assert from_json(Query, data) == QUERY


def test_what_an_older_version_did_not_write_takes_its_default() -> None:
    assert from_json(Column, {"name": "id"}) == Column("id", "text", None)


def test_an_empty_key_is_not_an_open_side() -> None:
    assert from_json(KeyRange, json.loads(json.dumps(to_json(KeyRange((), None))))) == KeyRange((), None)
