"""The oracles themselves: each sees a planted loss, double, cut and wrong byte. The files here are written by other
programs than ours."""

from __future__ import annotations

import ast
import base64
import io
import json
import random
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.oracles.comparison import MEANT, check, complaints
from tests.oracles.files import READERS
from tests.oracles.formulas import is_formula, safe
from tests.oracles.server import Truth, mysql, mysql_truth, sqlite_truth
from tests.services import MariaDB

NAMES, KINDS = ("id", "note", "price", "mark"), ("number", "text", "number", "binary")
ROWS = (
    (b"1", b"a", b"1.10", b"\x00\xff"),
    (b"2", b"", None, b"x"),
    (b"3", None, b"0.25", None),
    (b"4", 'say "ü,🦀"\n'.encode(), b"-7.00", b""),
    (b"5", b"\\N", b"12.50", b"\r\n"),
)
TRUTH = Truth(NAMES, KINDS, ROWS)


def written_delimited(truth: Truth, delimiter: str) -> bytes:
    def field(kind: str, raw: bytes | None) -> bytes:
        if raw is None:
            return b""
        text = base64.b64encode(raw) if kind == "binary" else raw
        return text if kind == "number" else b'"' + text.replace(b'"', b'""') + b'"'

    lines = [[b'"' + name.encode() + b'"' for name in truth.names]]
    lines += [list(map(field, truth.kinds, row)) for row in truth.rows]
    return b"".join(delimiter.encode().join(line) + b"\r\n" for line in lines)


def written_jsonlines(truth: Truth) -> bytes:
    def value(kind: str, raw: bytes | None) -> str:
        if raw is None:
            return "null"
        if kind == "number":
            return raw.decode()
        return json.dumps(base64.b64encode(raw).decode() if kind == "binary" else raw.decode())

    objects = [
        ",".join(f"{json.dumps(name)}:{value(kind, raw)}" for name, kind, raw in zip(*columns, row, strict=True))
        for columns in [(truth.names, truth.kinds)]
        for row in truth.rows
    ]
    return "".join(f"{{{line}}}\n" for line in objects).encode()


def written_xlsx(truth: Truth) -> bytes:
    def cell(kind: str, raw: bytes | None) -> object:
        if raw is None:
            return None
        if kind == "number":
            return Decimal(raw.decode())
        return base64.b64encode(raw).decode() if kind == "binary" else raw.decode().replace("\r", "_x000D_")

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Export")
    sheet.append(truth.names)
    for row in truth.rows:
        sheet.append([cell(kind, raw) for kind, raw in zip(truth.kinds, row, strict=True)])
    plain, whole = io.BytesIO(), io.BytesIO()
    book.save(plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            # openpyxl writes '' as a cell with nothing in it, as which it does not read it.
            empty = (b't="inlineStr" />', b't="inlineStr"><is><t></t></is></c>')
            new.writestr(name, old.read(name).replace(*empty))
    return whole.getvalue()


def written_parquet(truth: Truth) -> bytes:
    types = {"text": pa.string(), "binary": pa.binary(), "number": pa.decimal128(20, 2)}
    read = {"text": bytes.decode, "binary": bytes, "number": lambda raw: Decimal(raw.decode())}
    columns = [
        pa.array(
            [None if row[place] is None else read[kind](row[place]) for row in truth.rows],  # type: ignore[operator]
            pa.int64() if name == "id" else types[kind],
        )
        if name != "id"
        else pa.array([int(row[place] or 0) for row in truth.rows], pa.int64())
        for place, (name, kind) in enumerate(zip(truth.names, truth.kinds, strict=True))
    ]
    whole = io.BytesIO()
    pa.parquet.write_table(pa.table(columns, list(truth.names)), whole)
    return whole.getvalue()


WRITERS: dict[str, Callable[[Truth], bytes]] = {
    "csv": lambda truth: written_delimited(truth, ","),
    "tsv": lambda truth: written_delimited(truth, "\t"),
    "jsonl": written_jsonlines,
    "xlsx": written_xlsx,
    "parquet": written_parquet,
}
every_format = pytest.mark.parametrize("format", READERS)
line_formats = pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])


def changed(place: int, column: int, value: bytes | None) -> Truth:
    rows = [list(row) for row in ROWS]
    rows[place][column] = value
    return replace(TRUTH, rows=tuple(map(tuple, rows)))


def said(format: str, data: bytes, truth: Truth = TRUTH) -> str:
    return "\n".join(complaints(format, truth, data))


def test_every_oracle_is_tested_here() -> None:
    assert READERS.keys() == WRITERS.keys() == MEANT.keys()


@every_format
def test_a_file_without_a_fault_passes(format: str) -> None:
    check(format, TRUTH, WRITERS[format](TRUTH))


@every_format
@pytest.mark.parametrize("place", range(len(ROWS)))
def test_a_lost_row_is_seen(format: str, place: int) -> None:
    short = replace(TRUTH, rows=ROWS[:place] + ROWS[place + 1 :])
    assert "lost rows: 1 of 5" in said(format, WRITERS[format](short))


@every_format
@pytest.mark.parametrize("place", range(len(ROWS)))
def test_a_doubled_row_is_seen(format: str, place: int) -> None:
    long = replace(TRUTH, rows=(*ROWS[:place], ROWS[place], *ROWS[place:]))
    assert "doubled rows: 1" in said(format, WRITERS[format](long))


@every_format
def test_a_double_that_makes_up_for_a_loss_is_seen(format: str) -> None:
    complaint = said(format, WRITERS[format](replace(TRUTH, rows=(*ROWS[:4], ROWS[0]))))
    assert "doubled rows: 1" in complaint
    assert "lost rows: 1" in complaint


@every_format
def test_a_row_that_the_table_has_twice_is_to_be_there_twice(format: str) -> None:
    twice = replace(TRUTH, rows=(*ROWS, ROWS[0]))
    check(format, twice, WRITERS[format](twice))
    assert "lost rows: 1 of 6" in said(format, WRITERS[format](TRUTH), twice)


@line_formats
def test_a_cut_anywhere_is_seen(format: str) -> None:
    data = WRITERS[format](TRUTH)
    assert [end for end in range(len(data)) if not said(format, data[:end])] == []


@pytest.mark.parametrize("format", ["xlsx", "parquet"])
def test_a_cut_of_a_file_with_an_end_of_its_own_is_seen(format: str) -> None:
    data = WRITERS[format](TRUTH)
    for end in (*range(0, len(data), 211), len(data) - 1):
        assert "cut" in said(format, data[:end])


@every_format
def test_a_file_that_ends_between_two_rows_is_called_cut(format: str) -> None:
    assert "cut: only the first 3 of 5 rows" in said(format, WRITERS[format](replace(TRUTH, rows=ROWS[:3])))


@line_formats
def test_a_wrong_byte_anywhere_is_seen(format: str) -> None:
    data = WRITERS[format](TRUTH)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        assert said(format, bytes(damaged)), f"byte {place}: {bytes(damaged[place - 5 : place + 5])!r}"


@every_format
@pytest.mark.parametrize(
    ("place", "column", "value"),
    [(0, 1, b"b"), (1, 1, None), (2, 1, b""), (4, 1, b"\\n"), (0, 2, b"1.11"), (2, 2, b"0.20"), (2, 3, b""), (3, 3, None),
     (0, 3, b"\x00\xfe"), (3, 1, 'say "ü,🦀" '.encode()), (4, 3, b"\n")],
)  # fmt: skip
def test_a_wrong_value_is_seen_and_named(format: str, place: int, column: int, value: bytes | None) -> None:
    complaint = said(format, WRITERS[format](changed(place, column, value)))
    assert f"wrong value: ['row {place + 1}, {NAMES[column]}" in complaint.replace('["', "['")


@pytest.mark.parametrize("format", ["xlsx", "parquet"])
def test_a_wrong_byte_in_packed_values_is_seen(format: str) -> None:
    chance = random.Random(7)
    note = chance.randbytes(4000).hex().encode()
    truth = replace(TRUTH, rows=((b"1", note, b"1.00", note),))
    data = bytearray(WRITERS[format](truth))
    check(format, truth, bytes(data))
    for place in _inside(format, bytes(data)):
        data[place] ^= 16
        assert said(format, bytes(data), truth)
        data[place] ^= 16


def _inside(format: str, data: bytes) -> list[int]:
    """Some places in the middle of the values."""
    if format == "parquet":
        return [500, 3000, 7000]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheet = archive.getinfo("xl/worksheets/sheet1.xml")
    return [sheet.header_offset + 200 + share * sheet.compress_size // 4 for share in (0, 1, 2, 3)]


@every_format
def test_rows_in_another_order_are_seen(format: str) -> None:
    assert "another order" in said(format, WRITERS[format](replace(TRUTH, rows=ROWS[::-1])))


@every_format
def test_wrong_names_are_seen(format: str) -> None:
    assert "wrong names" in said(format, WRITERS[format](replace(TRUTH, names=("id", "note", "mark", "price"))))


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "xlsx"])
def test_a_float_that_lost_digits_is_seen(format: str) -> None:
    for kind, short, right in (("float32", b"0.333333", b"0.33333334"), ("float64", b"0.1", b"0.10000000000000002")):
        truth = Truth(("a",), (kind,), ((right,),))
        # As a text in a sheet: openpyxl writes numbers with 16 digits.
        wrong = Truth(("a",), ("text" if format == "xlsx" else "number",), ((short,),))
        check(format, truth, WRITERS[format](replace(wrong, rows=((right,),))))
        assert "wrong value" in said(format, WRITERS[format](wrong), truth)


FORMULAS = ["=1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\0=1", "+1+cmd", "-1+cmd|x", "-a", "+-1", "+A1", "-1 ", "-1,", "+1e",
            "-e5", "+1e+", "-1..5", "+ 1", "＝1+1", "＠x", "＋1+1", "－A1", "-\u0661", "+1E5E5"]  # fmt: skip
HARMLESS = ["", "a", "a=1", " =1", "-", "+", "－", "-5", "-1.5", "-1e5", "+1E-5", "+44 20 7946-0958", "-1,000.50", "'=1", "1-1",
            "\"=1", "－5", "%", "\u00a0=1"]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_one(text: str) -> None:
    assert is_formula(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_formula_is_none(text: str) -> None:
    assert not is_formula(text)


BASES = [b"\xf8\x0d\x7e", b"\xfb\x5d\xb7", b"=1"]  # "+A1+", "+123" and "PTE=" in base64


def of_formulas(apostrophe: Callable[[str], bool]) -> bytes:
    """A CSV file of texts and binary values, with an apostrophe before those that are said to need one."""

    def field(text: str) -> str:
        return '"' + ("'" if apostrophe(text) else "") + text.replace('"', '""') + '"'

    texts = [(text, base64.b64encode(BASES[place % 3]).decode()) for place, text in enumerate(FORMULAS + HARMLESS)]
    return "".join(f"{field(text)},{field(base)}\r\n" for text, base in [("=title", "mark"), *texts]).encode()


def said_of_formulas(apostrophe: Callable[[str], bool]) -> str:
    rows = tuple((text.encode(), BASES[place % 3]) for place, text in enumerate(FORMULAS + HARMLESS))
    truth = safe(Truth(("=title", "mark"), ("text", "binary"), rows))
    return "\n".join(complaints("csv", truth, of_formulas(apostrophe), safe=True))


def test_a_file_that_is_safe_passes() -> None:
    assert said_of_formulas(is_formula) == ""


@pytest.mark.parametrize("wrong", [*FORMULAS, *HARMLESS, "=title", "+A1+", "+123", "PTE="])
def test_one_apostrophe_too_few_or_too_many_is_seen(wrong: str) -> None:
    assert said_of_formulas(lambda text: is_formula(text) != (text == wrong))


@pytest.mark.parametrize("beginning", "=@+-\t\r\n\0＝＠＋－")
def test_a_rule_that_forgets_a_beginning_is_seen(beginning: str) -> None:
    assert said_of_formulas(lambda text: is_formula(text) and not text.startswith(beginning))


def test_a_number_in_quotes_is_no_number_in_json() -> None:
    truth = Truth(("a",), ("number",), ((b"1",),))
    assert "wrong value" in said("jsonl", b'{"a":"1"}\n', truth)


def test_a_format_without_an_oracle_is_no_success() -> None:
    with pytest.raises(AssertionError, match="no oracle for the format abc"):
        check("abc", TRUTH, b"")


# --- the truth itself -------------------------------------------------------------------------------------------------


def test_the_servers_truth_is_what_was_put_in(mariadb: MariaDB) -> None:
    url = mariadb.create_database("oracle")
    columns = (
        "a DECIMAL(6,3), b VARCHAR(9) CHARACTER SET latin1, c VARBINARY(9), d BIT(9), e FLOAT, f DATE, g JSON, h POINT"
    )
    values = "(-1.5, '', x'00ff', 5, 19.99, '0000-00-00', '[1.0]', POINT(1, 2))"
    mariadb.sql(f"SET sql_mode=''; CREATE TABLE t ({columns});"
                f"INSERT INTO t VALUES {values}, (NULL, 'ü€', NULL, NULL, NULL, NULL, NULL, NULL)", "oracle")  # fmt: skip
    with mysql(url) as cursor:
        truth = mysql_truth(cursor, "t", order="b")
        some = mysql_truth(cursor, "t", ["d", "a"], "b", kinds={"d": "boolean"})
    assert truth.kinds == ("number", "text", "binary", "number", "float32", "date", "json", "text")
    first = (b"-1.500", b"", b"\0\xff", b"5", b"19.989999771118164", b"0000-00-00", b"[1.0]", b"POINT(1 2)")
    assert truth.rows == (first, (None, "ü€".encode(), None, None, None, None, None, None))
    assert (some.names, some.kinds, some.rows[0]) == (("d", "a"), ("boolean", "number"), (b"5", b"-1.500"))


def test_sqlites_truth_is_what_was_put_in(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "t.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE t (a INTEGER, b REAL, c TEXT, d BLOB, e DECIMAL(9,2))")
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?, NULL)", (-(2**63), 0.1, "ü\0", b"\xff"))
    truth = sqlite_truth(tmp_path / "t.sqlite3", "t")
    assert truth.kinds == ("number", "float64", "text", "binary", "number")
    assert truth.rows == ((b"-9223372036854775808", b"0.1", "ü\0".encode(), b"\xff", None),)


def test_the_oracles_import_nothing_of_what_they_judge() -> None:
    allowed = {"tests.oracles", "tests.services"}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} imports relatively"
                names = [node.module or ""]
            for name in names:
                own = name.split(".")[0] in ("exportapp", "worker", "tests")
                assert not own or ".".join(name.split(".")[:2]) in allowed, f"{path.name} imports {name}"
