"""Parquet: true types and all of their digits, read back by pyarrow and by DuckDB, two readers that share no code."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import tempfile
import tracemalloc
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exportapp.engine.encoders import parquet
from exportapp.engine.encoders.parquet import ParquetEncoder
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, KeyRange, Row
from exportapp.engine.zones import in_zone, moved
from tests.engine.scenes import ListReader, columns, query
from tests.oracles.examples import examples


def file_of(wanted: tuple[Column, ...], *batches: list[Row]) -> bytes:
    encoder = ParquetEncoder(wanted)
    return encoder.start() + b"".join(map(encoder.encode, batches)) + encoder.finish()


def table_of(wanted: tuple[Column, ...], *batches: list[Row]) -> pa.Table:
    return pq.read_table(pa.BufferReader(file_of(wanted, *batches)))


def by_duckdb(data: bytes, folder: Path, wanted: str = "*") -> list[Any]:
    (folder / "file.parquet").write_bytes(data)
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {wanted} FROM read_parquet('{folder}/file.parquet')").fetchall()


def integer(bits: int | None, *, unsigned: bool = False, padded: bool = False) -> Column:
    return Column("a", "integer", bits=bits, unsigned=unsigned, padded=padded)


def decimal(precision: int | None, scale: int | None) -> Column:
    return Column("a", "decimal", scale, precision=precision)


VALUES: list[tuple[Column, bytes, str, Any]] = [
    (integer(8), b"-128", "int8", -128), (integer(16, unsigned=True), b"65535", "uint16", 65535),
    (integer(24), b"-8388608", "int32", -8388608), (integer(32, unsigned=True), b"4294967295", "uint32", 4294967295),
    (integer(64), b"-9223372036854775808", "int64", -(1 << 63)),
    (integer(64, unsigned=True), b"18446744073709551615", "uint64", (1 << 64) - 1), (integer(None), b"7", "int64", 7),
    (integer(16, unsigned=True, padded=True), b"0042", "uint16", 42),
    (decimal(10, 2), b"-12345678.90", "decimal128(10, 2)", Decimal("-12345678.90")),
    (decimal(38, 0), b"9" * 38, "decimal128(38, 0)", Decimal("9" * 38)),
    (decimal(65, 30), b"9" * 35 + b"." + b"1" * 30, "string", "9" * 35 + "." + "1" * 30),
    (decimal(None, 2), b"1.50", "decimal128(38, 2)", Decimal("1.50")), (decimal(None, None), b"1.5", "string", "1.5"),
    (Column("a", "float", bits=32), b"19.99", "float", 19.989999771118164),
    (Column("a", "float", bits=64), b"1.7976931348623157e308", "double", 1.7976931348623157e308),
    (Column("a", "float"), b"2.2250738585072014e-308", "double", 2.2250738585072014e-308),
    (Column("a", "float"), b"-0", "double", -0.0),
    (Column("a", "boolean"), b"1", "bool", True), (Column("a", "boolean"), b"0", "bool", False),
    (Column("a", "date"), b"0001-01-01", "date32[day]", datetime.date(1, 1, 1)),
    (Column("a", "date"), b"9999-12-31", "date32[day]", datetime.date(9999, 12, 31)),
    (Column("a", "datetime"), b"2024-02-29 10:00:00.000001", "timestamp[us]", datetime.datetime(2024, 2, 29, 10, 0, 0, 1)),
    (Column("a", "datetime"), b"1000-01-01 00:00:00", "timestamp[us]", datetime.datetime(1000, 1, 1)),
    (Column("a", "datetime"), b"9999-12-31 23:59:59.5", "timestamp[us]", datetime.datetime(9999, 12, 31, 23, 59, 59, 500000)),
    *[(Column("a", "datetime"), b"2024-02-29 10:00:00." + b"123456"[:digits], "timestamp[us]",
       datetime.datetime(2024, 2, 29, 10, 0, 0, 123456 // 10 ** (6 - digits) * 10 ** (6 - digits))) for digits in range(1, 7)],
    (Column("a", "time"), b"-838:59:59", "string", "-838:59:59"), (Column("a", "json"), b'{"a": 1.10}', "string", '{"a": 1.10}'),
    (Column("a"), "größer 🦀\0\x1f\",\r\n".encode(), "string", "größer 🦀\0\x1f\",\r\n"), (Column("a"), b"", "string", ""),
    (Column("a", "binary"), bytes(range(256)), "binary", bytes(range(256))), (Column("a", "binary"), b"", "binary", b""),
]  # fmt: skip


@pytest.mark.parametrize(("column", "raw", "kind", "value"), VALUES)
def test_a_value_has_its_true_type_and_all_it_says(
    tmp_path: Path, column: Column, raw: bytes, kind: str, value: Any
) -> None:
    data = file_of((column,), [(raw,), (None,)])
    table = pq.read_table(pa.BufferReader(data))
    assert (str(table.schema.field("a").type), table.column("a").to_pylist()) == (kind, [value, None])
    [[again], [null]] = by_duckdb(data, tmp_path)
    assert again == value
    assert null is None


def test_a_decimal_of_65_digits_keeps_them_all() -> None:
    digits = "-" + "1234567890" * 3 + "12345." + "0987654321" * 3
    assert str(table_of((decimal(65, 30),), [(digits.encode(),)]).column("a")[0]) == digits


KEPT = [b"9" * 36 + b".99", b"-" + b"9" * 36, b"1e35", b"1.5E1", b"+5", b".5", b"5.", b"-0", b"0e99999999", b"0" * 60 + b"1.5",
        b"1." + b"0" * 60, b"120e-1", b"1" * 36 + b"." + b"50" + b"0" * 90]  # fmt: skip


@pytest.mark.parametrize("raw", KEPT)
def test_a_decimal_that_has_room_is_kept_in_whatever_way_it_is_written(raw: bytes) -> None:
    [value, null] = table_of((decimal(None, 2),), [(raw,), (None,)]).column("a").to_pylist()
    assert (value, null) == (Decimal(raw.decode()), None)


@pytest.mark.parametrize("scale", [39, 40, 77, 1000, -1])
def test_a_scale_that_no_decimal_of_parquet_has_makes_a_text(scale: int) -> None:
    table = table_of((decimal(None, scale),), [(b"1." + b"1" * 40,), (None,)])
    assert str(table.schema.field("a").type) == "string"
    assert table.column("a").to_pylist() == ["1." + "1" * 40, None]


NUMBERS = st.from_regex(r"[+-]?[0-9]{1,90}(\.[0-9]{1,50})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@examples(50)
@given(st.lists(NUMBERS, max_size=5), st.sampled_from([(None, 2), (None, 0), (38, 38), (4, 2)]))
def test_a_decimal_comes_back_as_it_is_or_not_at_all(texts: list[str], digits: tuple[int | None, int]) -> None:
    precision, scale = digits
    for text in texts:
        try:
            [value] = table_of((decimal(precision, scale),), [(text.encode(),)]).column("a").to_pylist()
        except ExportError:
            meant, whole = Decimal(text), (precision or 38) - scale
            assert meant
            assert meant.adjusted() >= whole or meant != Decimal(f"{meant:.{scale}f}")
        else:
            assert value == Decimal(text)


@examples(100)
@given(NUMBERS)
def test_a_float_comes_back_with_all_digits_or_not_at_all(text: str) -> None:
    try:
        [value] = table_of((Column("a", "float"),), [(text.encode(),)]).column("a").to_pylist()
    except ExportError:
        assert Decimal(text) != Decimal(float(text))
    else:
        # As many digits as the text has are enough to tell it from all other numbers.
        places = min(1074, max(0, -Decimal(text).as_tuple().exponent))  # type: ignore[operator]
        assert Decimal(text) in (Decimal(repr(value)), Decimal(f"{value:.{places}f}"))


@examples(100)
@given(st.lists(st.floats(), min_size=1))
def test_what_python_writes_of_a_float_is_never_refused(floats: list[float]) -> None:
    """As the reader of SQLite has it."""
    values = table_of((Column("a", "float"),), [(b"%r" % number,) for number in floats]).column("a").to_pylist()
    assert list(map(repr, values)) == list(map(repr, floats))


def test_integers_that_a_float_keeps_are_floats() -> None:
    table = table_of((Column("a", "float"),), [(b"9007199254740994",), (b"-4611686018427387904.00",), (b"7",)])
    assert table.column("a").to_pylist() == [9007199254740994.0, -4611686018427387904.0, 7.0]


def test_a_server_writes_its_doubles_with_digits_that_say_nothing() -> None:
    table = table_of((Column("a", "float", bits=64),), [(b"1234567890123456780000",), (b"1e23",)])
    assert table.column("a").to_pylist() == [1234567890123456780000.0, 1e23]


# --- runs -------------------------------------------------------------------------------------------------------------


def by_runs(wanted: tuple[Column, ...], *rows: Row, batch: int = 2) -> pa.Table:
    """What becomes of bare columns, which a source joins."""
    encoder = ParquetEncoder(wanted)
    batches = ListReader(rows, batch).stream(query("t", ""), KeyRange(), "", encoder.runs)
    data = encoder.start() + b"".join(map(encoder.encode, batches)) + encoder.finish()
    return pq.read_table(pa.BufferReader(data))


def bare(name: str, kind: str, scale: int | None = None, **more: Any) -> Column:
    return Column(name, kind, scale, bare=True, **more)


RUN = (
    bare("a", "integer", bits=64, unsigned=True), bare("b", "integer", bits=64), bare("c", "float", bits=64),
    bare("d", "decimal", 10, precision=38), bare("e", "decimal", 38, precision=38), bare("f", "decimal", 0, precision=38),
    bare("g", "decimal", 2, precision=15), bare("h", "decimal", 19, precision=19), bare("i", "integer", bits=8),
)  # fmt: skip
ENDS: list[Row] = [
    (b"18446744073709551615", b"9223372036854775807", b"1.7976931348623157e308", b"9" * 28 + b"." + b"9" * 10,
     b"0." + b"9" * 38, b"9" * 38, b"9999999999999.99", b"0." + b"9" * 19, b"127"),
    (b"0", b"-9223372036854775808", b"-1.7976931348623157e308", b"-" + b"9" * 28 + b"." + b"9" * 10, b"-0." + b"9" * 38,
     b"-" + b"9" * 38, b"-9999999999999.99", b"-0." + b"9" * 19, b"-128"),
    (b"1", b"0", b"5e-324", b"0.0000000001", b"0." + b"0" * 37 + b"1", b"-1", b"0.01", b"0." + b"0" * 18 + b"1", b"0"),
    (None,) * 9,
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_run_keeps_the_numbers_at_the_ends_of_their_types(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(parquet, "RUN_BYTES", 300)  # one or two rows
    assert [run.places for run in ParquetEncoder(RUN).runs] == [range(3), range(5, 9)]
    read = [int, int, float, *[Decimal] * 5, int]
    meant = [[None if raw is None else kind(raw.decode()) for raw in column]
             for kind, column in zip(read, zip(*ENDS, strict=True), strict=True)]  # fmt: skip
    assert list(by_runs(RUN, *ENDS, batch=batch).to_pydict().values()) == meant


MORE = [
    (bare("a", "decimal", 2, precision=36), raw)
    for raw in (b"9" * 36, b"9" * 35, b"9" * 36 + b".00", b"1" * 40, b"1.005")
]
MORE += [(bare("a", "decimal", 2, precision=38), b"9" * 38), (bare("a", "decimal", 30, precision=38), b"9" * 30)]
MORE += [
    (bare("a", "integer", bits=64, unsigned=True), b"18446744073709551616"),
    (bare("a", "integer", bits=8), b"128"),
]


@pytest.mark.parametrize(("column", "raw"), MORE)
def test_a_number_of_a_run_that_has_no_room_is_refused(column: Column, raw: bytes) -> None:
    """No server should write one: then it is not what its columns say it is."""
    wanted = (column, bare("b", "integer", bits=64), bare("c", "integer", bits=64))
    with pytest.raises(ExportError, match=r"The column a holds “.*”, which Parquet's type"):
        by_runs(wanted, (b"1", b"2", b"3"), (raw, b"2", b"3"))


def test_a_run_of_nothing_is_counted_by_the_room_that_its_columns_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100 << 10)
    wanted = tuple(bare(f"c{place}", "integer", bits=64) for place in range(100))
    encoder, rows = ParquetEncoder(wanted), [(b"," * 99,)] * 50
    data = encoder.start() + b"".join(encoder.encode(rows) for _ in range(4)) + encoder.finish()
    file = pq.ParquetFile(pa.BufferReader(data))
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [150, 50]


CLOCKS = {"UTC": 0, "Europe/Berlin": 2, "America/New_York": 2, "Asia/Kathmandu": 0, "Australia/Lord_Howe": 2}


@pytest.mark.parametrize(("zone", "changes"), CLOCKS.items())
def test_times_are_moments_through_both_changes_of_the_clocks(tmp_path: Path, zone: str, changes: int) -> None:
    began = datetime.datetime(2026, 1, 1, 12, 5, 30, 250000, tzinfo=datetime.UTC)
    moments = [began + datetime.timedelta(minutes=10 * step) for step in range(365 * 24 * 6)]
    offsets = [at.astimezone(ZoneInfo(zone)).utcoffset() for at in moments]
    assert sum(before != after for before, after in pairwise(offsets)) == changes
    wanted, shifts = in_zone((Column("a", "datetime", zone="UTC"),), zone)
    rows: list[Row] = [(at.replace(tzinfo=None).isoformat(" ").encode(),) for at in moments]
    data = file_of(wanted, moved(rows, shifts))
    table = pq.read_table(pa.BufferReader(data))
    assert str(table.schema.field("a").type) == f"timestamp[us, tz={zone}]"
    assert table.column("a").cast(pa.timestamp("us", "UTC")).to_pylist() == moments
    microseconds = [row[0] for row in by_duckdb(data, tmp_path, "epoch_us(a)")]
    assert microseconds == [round(at.timestamp() * 1000) * 1000 for at in moments]


def test_both_halves_of_the_repeated_hour_stay_apart_and_the_missing_hour_is_not_made_up() -> None:
    local = [b"2026-10-25 02:30:00+02:00", b"2026-10-25 02:30:00+01:00", b"2026-03-29 01:59:59.999999+01:00",
             b"2026-03-29 03:00:00+02:00"]  # fmt: skip
    table = table_of((Column("a", "datetime", zone="Europe/Berlin"),), [(text,) for text in local])
    first, second, before, after = table.column("a").cast(pa.int64()).to_pylist()
    assert (second - first, after - before) == (3600 * 1_000_000, 1)


REFUSED = [
    (Column("a", "date", label="Day"), b"0000-00-00"), (Column("a", "date", label="Day"), b"2024-02-00"),
    (Column("a", "datetime", label="Day"), b"0000-00-00 00:00:00"), (Column("a", "boolean", label="Day"), b"2"),
    (Column("a", "datetime", label="Day", zone="UTC"), b"0000-00-00 00:00:00"),
    (Column("a", "integer", label="Day", bits=8), b"128"), (Column("a", "integer", label="Day"), b"1.5"),
    *[(Column("a", "integer", label="Day"), raw) for raw in (b"0x10", b"0xffffffffffffffff", b"+5", b" 5", b"5 ", b"")],
    (Column("a", "integer", label="Day", bits=64, unsigned=True), b"-1"), (Column("a", "boolean", label="Day"), b"true"),
    (Column("a", "float", label="Day"), b"1e400"), (Column("a", "float", label="Day", bits=32), b"-1e39"),
    (Column("a", "date", label="Day"), b"2024-02-30"), (Column("a", "datetime", label="Day"), b"2024-01-01 24:00:00"),
    (Column("a", "datetime", label="Day"), b"2024-01-01 10:00:00.1234567"), (Column("a", "date", label="Day"), b""),
    (Column("a", "datetime", label="Day", zone="UTC"), b"2024-01-01 10:00:00"),
    (Column("a", "decimal", 2, "Day", precision=4), b"123.45"), (Column("a", "decimal", 1, "Day", precision=9), b"1.25"),
    *[(Column("a", "decimal", 2, "Day"), raw) for raw in (
        b"9" * 37, b"9" * 37 + b".99", b"9" * 38, b"9" * 39, b"1e36", b"1e39", b"1e300", b"1E999999999999999999999", b"1_0",
        b"1e-3", b"1e-99999999", b"0." + b"1" * 38, b" 5", b"", b"inf", "\u0665".encode())],
    (Column("a", "decimal", 0, "Day", precision=3), b"1000"),
    (Column("a", "decimal", 2, "Day", precision=2), b"1.00"),
    *[(Column("a", "float", label="Day"), raw) for raw in (
        b"9007199254740993", b"-9223372036854775807", b"9007199254740993.00", b"0.12345678901234567890", b"1e-400",
        b"1e-99999999", b"1.234567890123456789e5", b"5.1234567890123e-324")],
]  # fmt: skip


@pytest.mark.parametrize(("column", "raw"), REFUSED)
def test_a_value_that_a_type_has_not_ends_the_export_with_a_sentence(column: Column, raw: bytes) -> None:
    ending = r"has not\. Leave the column out, or choose CSV or JSON Lines\.$"
    with pytest.raises(ExportError) as caught:
        file_of((column,), [(None,), (raw,)])
    shown = re.escape(raw.decode()[: parquet.LONGEST_SHOWN])
    assert re.match(rf"The column Day holds “{shown}”, which Parquet's type .*{ending}", caught.value.sentence)
    assert caught.value.permanent


@pytest.mark.parametrize("kind", ["text", "json", "date"])
def test_bytes_that_are_no_utf8_end_the_export_and_json_lines_is_no_way_out(kind: str) -> None:
    with pytest.raises(ExportError, match=r"Day holds “a�”, which is no UTF-8 text\..* or choose CSV\. ") as caught:
        file_of((Column("a", kind, label="Day"),), [(None,), (b"a\xff",)])
    assert caught.value.permanent


def test_a_refused_value_is_shown_in_short() -> None:
    with pytest.raises(ExportError) as caught:
        file_of((Column("a", "integer"),), [(b"1" * 1_000_000,)])
    assert len(str(caught.value)) < 1000


def test_a_float_that_is_infinite_or_none_by_its_own_text_stays_so() -> None:
    table = table_of((Column("a", "float"),), [(b"inf",), (b"-inf",), (b"nan",), (None,)])
    assert [str(value) for value in table.column("a").to_pylist()] == ["inf", "-inf", "nan", "None"]


INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)
DECIMALS = st.decimals(-(10**12), 10**12, allow_nan=False, places=2).map(lambda value: value + 0)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RANDOM = st.tuples(
    *map(
        st.none().__or__,
        (INTEGERS, DECIMALS, FLOATS, st.booleans(), st.dates(), st.datetimes(), st.text(), st.binary()),
    )
)
RANDOM_COLUMNS = (
    *columns("i:integer"), Column("d", "decimal", 2, precision=15), *columns("f:float b:boolean day:date at:datetime t"),
    Column("x", "binary"),
)  # fmt: skip


def as_stored(value: Any) -> bytes | None:
    """A value as a server writes it."""
    if value is None or isinstance(value, bytes):
        return value
    return str(int(value) if isinstance(value, bool) else value).encode()


@examples(50)
@given(st.lists(RANDOM, min_size=1, max_size=12), st.integers(0, 12))
def test_random_tables_come_back_from_both_readers(meant: list[tuple[Any, ...]], cut: int) -> None:
    rows = [tuple(map(as_stored, row)) for row in meant]
    data = file_of(RANDOM_COLUMNS, rows[:cut], rows[cut:])
    table = pq.read_table(pa.BufferReader(data))
    assert list(zip(*table.to_pydict().values(), strict=True)) == meant
    with tempfile.TemporaryDirectory() as folder:
        assert by_duckdb(data, Path(folder)) == meant


def test_row_groups_are_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    rows: list[Row] = [(b"%d" % number, b"x") for number in range(30)]
    many = pq.ParquetFile(pa.BufferReader(file_of(columns("a:integer b"), *[rows] * 10)))
    assert [many.metadata.row_group(group).num_rows for group in range(many.num_row_groups)] == [120, 120, 60]
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2500)
    wide = pq.ParquetFile(pa.BufferReader(file_of(columns("a"), *[[(b"x" * 600,)]] * 5)))
    assert [wide.metadata.row_group(group).num_rows for group in range(wide.num_row_groups)] == [2, 2, 1]


def test_row_groups_grow_when_their_footer_outgrows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 10)
    monkeypatch.setattr(parquet, "FOOTER_BYTES", parquet.GROUP_BYTES)
    rows: list[Row] = [(b"%d" % number,) for number in range(10)]
    many = pq.ParquetFile(pa.BufferReader(file_of(columns("a:integer"), *[rows] * 8)))
    assert [many.metadata.row_group(group).num_rows for group in range(many.num_row_groups)] == [10, 10, 20, 30, 10]


def test_a_row_of_16_megabytes_is_a_group_by_itself() -> None:
    wide, narrow = [(b"x" * (16 << 20),)], [(b"y",)] * 5
    file = pq.ParquetFile(pa.BufferReader(file_of(columns("a:binary"), wide, narrow, wide)))
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [1, 6]
    assert [len(value) for value in file.read().column("a").to_pylist()] == [16 << 20, 1, 1, 1, 1, 1, 16 << 20]


def test_a_group_knows_its_least_and_greatest_value_and_how_many_are_null() -> None:
    file = pq.ParquetFile(pa.BufferReader(file_of(columns("a:integer"), [(b"5",), (None,), (b"-7",)])))
    statistics = file.metadata.row_group(0).column(0).statistics
    assert (statistics.min, statistics.max, statistics.null_count) == (-7, 5, 1)


@pytest.mark.parametrize("batches", [[], [[]]])
def test_a_file_without_rows_has_its_columns(tmp_path: Path, batches: list[list[Row]]) -> None:
    data = file_of((integer(16), Column("b", label="B"), Column("c", "datetime", zone="Asia/Kathmandu")), *batches)
    table = pq.read_table(pa.BufferReader(data))
    fields = [(field.name, str(field.type), field.nullable) for field in table.schema]
    assert fields == [("a", "int16", True), ("b", "string", True), ("c", "timestamp[us, tz=Asia/Kathmandu]", True)]
    assert (table.num_rows, by_duckdb(data, tmp_path)) == (0, [])


def test_null_and_empty_text_stay_apart_in_any_order() -> None:
    table = table_of(columns("a b:binary"), [(None, b""), (b"", None)], [(None, None)])
    assert table.to_pylist() == [{"a": None, "b": b""}, {"a": "", "b": None}, {"a": None, "b": None}]


def test_the_same_rows_give_the_same_bytes() -> None:
    rows: list[Row] = [(b"%d" % number, b"text %d" % (number % 7)) for number in range(500)]
    assert file_of(columns("a:integer b"), rows) == file_of(columns("a:integer b"), rows)


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 1000)

    def peak(batches: int) -> int:
        encoder = ParquetEncoder(columns("a:integer b"))
        before, highest = pa.total_allocated_bytes(), 0
        tracemalloc.start()
        for _ in range(batches):
            encoder.encode([(b"%d" % number, b"x" * 50) for number in range(500)])
            highest = max(highest, pa.total_allocated_bytes() - before)
        encoder.finish()
        highest += tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(400) < 2 * peak(40)


def test_other_formats_do_without_pyarrow() -> None:
    code = "import sys, exportapp.engine.chunks; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PEAK = """
from exportapp.engine.encoders import FORMATS
from exportapp.engine.specs import Column
wanted = tuple(Column(f"c{place}", kind, bits=64, bare=True) for place in range(width))
encoder = FORMATS[format].encoder(wanted)
encoder.start()
for start in range(0, rows, step):
    made = [[b"text %d %d" % (row, place % 7) if kind == "text" else b"%d" % (row * 31 + place) for place in range(width)]
            for row in range(start, start + step)]
    encoder.encode([(b",".join(row),) if encoder.runs else tuple(row) for row in made])
encoder.finish()
print(max(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024)
"""


# What a reader gives at once is not the encoder's: here it is 30,000 values at most, but for one case.
PEAKS = [("parquet", "integer", 300, 20_000, 100, 100), ("parquet", "text", 300, 20_000, 100, 100),
         ("parquet", "text", 10, 60_000, 1000, 88), ("xlsx", "text", 300, 10_000, 1000, 60)]  # fmt: skip


@pytest.mark.parametrize(("format", "kind", "width", "rows", "step", "most"), PEAKS)
def test_narrow_tables_and_wide_ones_take_little_memory(
    format: str, kind: str, width: int, rows: int, step: int, most: int
) -> None:
    code = f"format, kind, width, rows, step = {(format, kind, width, rows, step)!r}\n{PEAK}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) < most
