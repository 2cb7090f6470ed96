"""The demo shop: always the same, with everything nasty in it, and whole or not there at all."""

from __future__ import annotations

import contextlib
import sqlite3
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from exportapp import sample
from exportapp.sample import SampleError, write_shop

ORDERS = 3_000
ROOT = Path(__file__).resolve().parent.parent


def shop(path: Path, orders: int = ORDERS, **options: Any) -> dict[str, int]:
    return write_shop(f"sqlite:///{path}", orders, progress=lambda text: None, **options)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


def value(path: Path, statement: str) -> Any:
    with opened(path) as connection:
        return connection.execute(statement).fetchone()[0]


def dump(path: Path) -> list[str]:
    with opened(path) as connection:
        return list(connection.iterdump())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sample") / "shop.sqlite3"
    shop(file)
    return file


def test_two_runs_write_the_same(path: Path, tmp_path: Path) -> None:
    shop(tmp_path / "again.sqlite3")
    assert dump(tmp_path / "again.sqlite3") == dump(path)


def test_another_seed_is_another_shop(path: Path, tmp_path: Path) -> None:
    shop(tmp_path / "other.sqlite3", seed=7)
    assert dump(tmp_path / "other.sqlite3") != dump(path)


def test_counts_are_told_as_they_are(tmp_path: Path) -> None:
    counts = shop(tmp_path / "shop.sqlite3", 1_000)
    assert counts == {name: value(tmp_path / "shop.sqlite3", f"SELECT COUNT(*) FROM {name}") for name in sample.TABLES}
    assert counts["orders"] == 1_000
    assert 2_200 < counts["order_lines"] < 2_800


def test_a_shop_may_be_tiny(tmp_path: Path) -> None:
    assert shop(tmp_path / "shop.sqlite3", 1)["orders"] == 1


NASTY = {
    "nothing": "comment IS NULL",
    "empty": "comment = ''",
    "comma": "comment LIKE '%,%'",
    "double quote": "comment LIKE '%\"%'",
    "single quote": "comment LIKE '%''%'",
    "backslash": "comment LIKE '%\\%'",
    "line feed": "instr(comment, char(10)) AND NOT instr(comment, char(13))",
    "carriage return and line feed": "instr(comment, char(13, 10))",
    "carriage return alone": "instr(replace(comment, char(13, 10), ''), char(13))",
    "tab": "instr(comment, char(9))",
    "space in front": "comment LIKE ' %'",
    "space behind": "comment LIKE '% '",
    "equals in front": "comment LIKE '=%'",
    "plus in front": "comment LIKE '+%'",
    "minus in front": "comment LIKE '-%'",
    "at in front": "comment LIKE '@%'",
    "emoji of four bytes": "instr(comment, '🎁')",
    "emoji of many parts": "instr(comment, '👨‍👩‍👧‍👦')",
    "Japanese": "comment GLOB '*[ぁ-ん]*'",
    "Arabic": "comment GLOB '*[ا-ي]*'",
    "Hebrew": "comment GLOB '*[א-ת]*'",
    "Cyrillic": "comment GLOB '*[а-я]*'",
    "zeros in front": "comment GLOB '000[0-9]*'",
    "the word NULL": "comment = 'NULL'",
    "long": "length(comment) > 2000",
    "ordinary": "comment = 'Please ring the bell twice.'",
    "everything at once": "comment LIKE '%\"%''%' AND instr(comment, char(13, 10, 9) || '=') AND instr(comment, '📦')",
    "refund": "total < 0",
    "zero in front of the tracking number": "tracking_id GLOB '0*' AND length(tracking_id) = 14",
    "empty tracking number": "tracking_id = ''",
    "more digits than a float has": "payment_reference > 100000000000000000",
    "not shipped": "shipped_at IS NULL",
    "not a whole amount": "typeof(total) = 'real' AND total <> CAST(total AS INTEGER)",
    "whole amount": "typeof(total) = 'integer'",
    "gift": "is_gift = 1",
    "no gift": "is_gift = 0",
    "a rate of four digits": "tax_rate = 0.0888",
    "late import": "placed_at < (SELECT max(placed_at) FROM orders earlier WHERE earlier.id < orders.id)",
}


@pytest.mark.parametrize("condition", NASTY.values(), ids=NASTY.keys())
def test_orders_hold_everything_nasty(path: Path, condition: str) -> None:
    assert value(path, f"SELECT COUNT(*) FROM orders WHERE {condition}") > 0


OTHERS = {
    "customers": ["company IS NULL", "company = ''", "phone IS NULL", "phone = ''", "phone LIKE '+%'",
                  "last_login_at IS NULL", "full_name LIKE ' %'", "length(loyalty_card) = 16", "credit_limit IS NULL",
                  "birth_date < '1970-01-01'"],
    "products": ["attributes IS NULL", "json_valid(attributes)", "weight_kg IS NULL", "weight_kg BETWEEN 0 AND 0.0001",
                 "sku LIKE '0%'", "instr(name, '\"')", "active = 0", "released_on IS NULL"],
    "order_lines": ["quantity < 0", "amount < 0", "note IS NULL", "note = ''", "line_no = 9"],
}  # fmt: skip


@pytest.mark.parametrize(("table", "condition"), [(table, one) for table, all_ in OTHERS.items() for one in all_])
def test_the_other_tables_are_nasty_too(path: Path, table: str, condition: str) -> None:
    assert value(path, f"SELECT COUNT(*) FROM {table} WHERE {condition}") > 0


def test_comments_mostly_look_like_life(path: Path) -> None:
    with opened(path) as connection:
        comments = [text for (text,) in connection.execute("SELECT comment FROM orders")]
    assert set(sample.NASTY) <= set(comments)
    assert sum(text in sample.NASTY for text in comments) < len(comments) / 10


def test_ids_have_gaps_and_times_stay_in_the_three_years(path: Path) -> None:
    with opened(path) as connection:
        ids = [number for (number,) in connection.execute("SELECT id FROM orders ORDER BY id")]
        times = connection.execute("SELECT min(placed_at), max(placed_at), max(shipped_at) FROM orders").fetchone()
    gaps = [after - before for before, after in pairwise(ids)]
    assert {1, 2, 5} < set(gaps)
    assert max(gaps) > ORDERS / 2
    assert times[0].startswith("2023-11") and times[1].startswith("2026-10") and times[2] < "2026-11-01"


def test_totals_are_the_sums_of_the_lines(path: Path) -> None:
    wrong = """SELECT COUNT(*) FROM orders WHERE abs(total - shipping_fee
               - (SELECT SUM(quantity * unit_price) FROM order_lines WHERE order_id = orders.id)) > 0.001"""
    assert value(path, wrong) == 0


def test_people_sign_up_before_they_order(path: Path) -> None:
    joined = "orders JOIN customers ON customers.id = customer_id"
    assert value(path, f"SELECT COUNT(*) FROM {joined}") == ORDERS
    assert value(path, f"SELECT COUNT(*) FROM {joined} WHERE placed_at < signed_up_at") == 0


def test_christmas_and_growth_show(path: Path) -> None:
    def orders(begin: str, end: str) -> int:
        return int(value(path, f"SELECT COUNT(*) FROM orders WHERE placed_at >= '{begin}' AND placed_at < '{end}'"))

    assert orders("2024-11-01", "2025-01-01") > 1.4 * orders("2024-07-01", "2024-09-01")
    assert orders("2025-11-01", "2026-11-01") > 1.2 * orders("2023-11-01", "2024-11-01")


def test_indexes_are_there(path: Path) -> None:
    with opened(path) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        plan = str(
            connection.execute("EXPLAIN QUERY PLAN SELECT * FROM orders WHERE placed_at > '2026-10-31'").fetchall()
        )
    assert {"orders_placed_at", "order_lines_placed_at", "customers_signed_up_at"} <= names
    assert "orders_placed_at" in plan
    assert value(path, "SELECT COUNT(*) FROM sqlite_stat1") > 0


def test_a_shop_that_is_there_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "shop.sqlite3"
    counts = shop(file, 200)
    before = file.stat()
    assert shop(file, 300) == counts
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert shop(file, 300, replace=True)["orders"] == 300


def test_an_interrupted_run_leaves_nothing_and_is_repeated(tmp_path: Path) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "shop.sqlite3"
    with pytest.raises(KeyboardInterrupt):
        write_shop(f"sqlite:///{file}", 200, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert shop(file, 200)["orders"] == 200


def test_the_rest_of_a_killed_run_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "shop.sqlite3.part").write_bytes(b"half a file")
    (tmp_path / "shop.sqlite3").touch()
    assert shop(tmp_path / "shop.sqlite3", 200)["orders"] == 200
    assert [file.name for file in tmp_path.iterdir()] == ["shop.sqlite3"]


def test_a_shop_without_its_mark_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "shop.sqlite3"
    shop(file, 200)
    with opened(file) as connection:
        connection.executescript(f"DELETE FROM {sample.MARKER}; DELETE FROM orders;")
    assert shop(file, 200)["orders"] == value(file, "SELECT COUNT(*) FROM orders") == 200


@pytest.mark.parametrize("table", ["orders", "invoices"])
def test_the_tables_of_others_are_never_replaced(tmp_path: Path, table: str) -> None:
    file = tmp_path / "real.sqlite3"
    with opened(file) as connection:
        connection.executescript(f"CREATE TABLE {table} (id INTEGER)")
    with pytest.raises(SampleError, match=table):
        shop(file, 200, replace=True)


@pytest.mark.parametrize("url", ["", "postgres://host/shop", "sqlite://", "mysql://host", "/shop.sqlite3"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(SampleError, match="neither"):
        write_shop(url)


DATASETS: dict[str, Any] = tomllib.loads((ROOT / "datasets.toml").read_text())["datasets"]


@pytest.mark.parametrize("name", DATASETS)
def test_the_demo_datasets_fit_the_shop(path: Path, name: str) -> None:
    dataset = DATASETS[name]
    relation = dataset.get("table") or f"({dataset['query']})"
    columns = [column["name"] for column in dataset["columns"]]
    assert {*dataset.get("key", []), dataset.get("time_column", columns[0])} <= set(columns)
    with opened(path) as connection:
        # Backticks: in double quotes SQLite takes an unknown column for a text.
        rows = connection.execute(
            f"SELECT {', '.join(f'`{one}`' for one in columns)} FROM {relation} AS source"
        ).fetchall()
    assert rows
    for column, values in zip(dataset["columns"], zip(*rows, strict=True), strict=True):
        if "choices" in column:
            assert set(values) <= set(column["choices"])
