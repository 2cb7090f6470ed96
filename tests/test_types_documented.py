"""The examples in docs/types.md are what people get: each is put into a table and exported as form and command do."""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pyarrow.parquet
import pytest

from exportapp.engine.chunks import write_piece
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import ExportError
from exportapp.engine.readers.base import Reader
from exportapp.engine.readers.mysql import MySQLReader
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.sinks.memory import MemoryStore
from exportapp.engine.specs import ChunkSpec, Column, KeyRange, Query, Recipe
from exportapp.introspection import inspecting
from tests.services import MariaDB

PAGE = Path(__file__).resolve().parent.parent / "docs/types.md"
CELLS = {"number": "n", "date": "d", "time": "d", "text": "s", "true or false": "b"}  # openpyxl's letters
REFUSED = "refused"


@dataclass(frozen=True)
class Example:
    """A row of the table."""

    type: str
    literal: str
    delimited: str
    json: str
    sheet: str
    parquet: str


def examples() -> list[Example]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows = [re.sub(r"(^|(?<= ))`|`(?= |$)", "", line.strip("| ")).split(" | ") for line in lines]
    return [Example(*row) for row in rows]


EXAMPLES = examples()
every_example = pytest.mark.parametrize(
    ("place", "example"), list(enumerate(EXAMPLES)), ids=[f"{one.type} {one.literal}" for one in EXAMPLES]
)


@dataclass
class Source:
    """A table with a column for each example, as an operator who asks for its types is told to declare them."""

    url: str
    columns: tuple[Column, ...]

    def written(self, format: str, place: int) -> bytes:
        query = Query("example", False, (self.columns[place],))
        with closing(MySQLReader(self.url)) as reader:
            return piece(reader, query, format)


def piece(reader: Reader, query: Query, format: str) -> bytes:
    store = MemoryStore()
    spec = ChunkSpec(query, KeyRange(), format, "none", "file", True, "", 3600, zone=Recipe.zone)
    write_piece(spec, reader, store)
    return store.files["file"]


@pytest.fixture(scope="module")
def source(mariadb: MariaDB) -> Iterator[Source]:
    url = mariadb.create_database("documented")
    kinds = ", ".join(f"c{place} {example.type} NULL" for place, example in enumerate(EXAMPLES))
    values = ", ".join(example.literal for example in EXAMPLES)
    mariadb.sql(f"SET sql_mode=''; CREATE TABLE example ({kinds}); INSERT INTO example VALUES ({values})", "documented")
    with inspecting(url) as inspector:
        told = inspector.tables()["example"].columns
    # The one type that MariaDB does not tell: the page says so.
    types = ["json" if one.type == "JSON" else column.type for one, column in zip(EXAMPLES, told, strict=True)]
    yield Source(url, tuple(Column(column.name, kind) for column, kind in zip(told, types, strict=True)))


@every_example
def test_documented_text_stands_in_csv_and_tsv(source: Source, place: int, example: Example) -> None:
    for format in ("csv", "tsv"):
        assert source.written(format, place) == f'"c{place}"\r\n{example.delimited}\r\n'.encode()


@every_example
def test_documented_text_stands_in_json_lines(source: Source, place: int, example: Example) -> None:
    assert source.written("jsonl", place) == f'{{"c{place}":{example.json}}}\n'.encode()


@every_example
def test_documented_kind_of_cell_stands_in_xlsx(source: Source, place: int, example: Example) -> None:
    with closing(openpyxl.load_workbook(io.BytesIO(source.written("xlsx", place)))) as book:
        assert book.worksheets[0]["A2"].data_type == CELLS[example.sheet]


@every_example
def test_documented_type_stands_in_parquet(source: Source, place: int, example: Example) -> None:
    if example.parquet == REFUSED:
        with pytest.raises(ExportError, match=rf"\bc{place}\b") as caught:
            source.written("parquet", place)
        assert caught.value.permanent
        return
    assert (
        str(pyarrow.parquet.read_schema(io.BytesIO(source.written("parquet", place))).field(0).type) == example.parquet
    )


# --- what is said of SQLite -------------------------------------------------------------------------------------------


def from_sqlite(path: Path, column: Column, value: str | bytes, format: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE example (a TEXT)")
        connection.execute("INSERT INTO example VALUES (CAST(? AS TEXT))", [value])
    with closing(SQLiteReader(f"sqlite:///{path}")) as reader:
        return piece(reader, Query("example", False, (column,)), format)


def test_bytes_that_are_no_utf8_are_as_they_are_in_csv_and_tsv(tmp_path: Path) -> None:
    for format in ("csv", "tsv"):
        assert from_sqlite(tmp_path / format, Column("a"), b"gr\xf6\xdfe", format) == b'"a"\r\n"gr\xf6\xdfe"\r\n'


@pytest.mark.parametrize("format", sorted(FORMATS.keys() - {"csv", "tsv"}))
def test_bytes_that_are_no_utf8_end_an_export_in_another_format(tmp_path: Path, format: str) -> None:
    with pytest.raises(ExportError, match="no UTF-8 text") as caught:
        from_sqlite(tmp_path / "file", Column("a"), b"gr\xf6\xdfe", format)
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("zone", "stored", "written"),
    [
        ("Europe/Berlin", "2026-01-31 14:30:00", "2026-01-31 13:30:00+00:00"),
        ("Europe/Berlin", "2026-01-31T14:30:00.5", "2026-01-31 13:30:00.5+00:00"),
        ("Europe/Berlin", "2026-01-31 14:30", "2026-01-31 13:30+00:00"),
        ("Europe/Berlin", "2026-01-31 14:30:00+05:00", "2026-01-31 14:30:00+05:00"),
        ("Europe/Berlin", "2026-01-31", "2026-01-31"),
        ("", "2026-01-31 14:30:00", "2026-01-31 14:30:00"),
    ],
)
def test_time_is_moved_if_its_zone_is_declared_and_is_as_it_is_stored_else(
    tmp_path: Path, zone: str, stored: str, written: str
) -> None:
    column = Column("a", "datetime", zone=zone)
    assert from_sqlite(tmp_path / "file", column, stored, "csv") == f'"a"\r\n{written}\r\n'.encode()


def test_every_type_that_an_operator_may_declare_is_documented() -> None:
    documented = {re.split(r"[ (]", example.type)[0] for example in EXAMPLES}
    wanted = {"DECIMAL", "FLOAT", "DOUBLE", "BIT", "YEAR", "DATE", "DATETIME", "TIMESTAMP", "TIME", "CHAR", "VARCHAR", "TEXT",
              "BINARY", "VARBINARY", "BLOB", "ENUM", "SET", "JSON", "GEOMETRY", "TINYINT", "SMALLINT", "MEDIUMINT", "INT",
              "BIGINT"}  # fmt: skip
    assert wanted - documented == set()
