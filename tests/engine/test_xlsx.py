"""XLSX: openpyxl, Python's zipfile and LibreOffice as independent readers of what was written."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import re
import shutil
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.cell.cell import Cell
from openpyxl.workbook import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from exportapp.engine.encoders import xlsx, zipstream
from exportapp.engine.encoders.formulas import is_formula
from exportapp.engine.encoders.xlsx import XLSXEncoder
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, FileOptions, Row
from tests.engine.scenes import a_decimal, a_text, an_integer, columns, plain_text, random_rows, some_bytes

EXACT = FileOptions(exact=True)


def file_of(wanted: Sequence[Column], *batches: Sequence[Row], options: FileOptions = FileOptions()) -> bytes:
    encoder = XLSXEncoder(wanted, options)
    return encoder.start() + b"".join(map(encoder.encode, batches)) + encoder.finish()


def book_of(data: bytes) -> Workbook:
    return openpyxl.load_workbook(io.BytesIO(data))


def sheet_of(names: str, *rows: Row, options: FileOptions = FileOptions()) -> Worksheet:
    sheet = book_of(file_of(columns(names), rows, options=options)).active
    assert isinstance(sheet, Worksheet)
    return sheet


def cell_of(column: Column | str, raw: bytes | None, options: FileOptions = FileOptions()) -> Cell:
    """The cell of one value in a column, given as such or as its type."""
    wanted = Column("a", column) if isinstance(column, str) else column
    cell: Cell = book_of(file_of([wanted], [(raw,)], options=options)).active["A2"]  # type: ignore[index]
    return cell


def xml_of(data: bytes, name: str = "xl/worksheets/sheet1.xml") -> str:
    return zipfile.ZipFile(io.BytesIO(data)).read(name).decode()


def said(text: object) -> object:
    """A text as Excel says it: openpyxl leaves _xHHHH_ (ECMA-376 part 1, 22.9.2.19) in texts of cells as they are."""
    return re.sub("_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text) if isinstance(text, str) else text


# Numbers


@pytest.mark.parametrize("raw", ["0", "7", "-7", "123456789012345", "-123456789012345", "1000000000000000000"])
def test_an_integer_is_a_number_that_shows_all_its_digits(raw: str) -> None:
    cell = cell_of("integer", raw.encode())
    assert (cell.value, cell.data_type, cell.number_format) == (int(raw), "n", "0")


@pytest.mark.parametrize("raw", ["1234567890123456", "18446744073709551615", "-9223372036854775808"])
def test_a_long_integer_keeps_all_its_digits(raw: str) -> None:
    cell = cell_of("integer", raw.encode())
    assert (cell.value, cell.data_type, cell.number_format) == (raw, "s", "@")


@pytest.mark.parametrize("kind", ["integer", "decimal", "float", "boolean"])
@pytest.mark.parametrize("raw", ["0000000042", "-01", "+1", ".5", "5.", "1.2.3", "--1", "1,2", "NaN", "a<b", "", "1 "])
def test_what_is_no_plain_number_is_a_text(kind: str, raw: str) -> None:
    cell = cell_of(kind, raw.encode())
    assert (cell.value, cell.data_type) == (raw, "s")


def test_a_batch_with_one_odd_number_keeps_the_others_numbers() -> None:
    sheet = sheet_of("a:integer", (b"1",), (b"0042",), (None,), (b"12345678901234567",), (b"3",))
    assert [cell.value for cell in sheet["A"]] == ["a", 1, "0042", None, "12345678901234567", 3]


@pytest.mark.parametrize(("scale", "form"), [(2, "0.00"), (0, "0"), (30, "0." + "0" * 30), (None, "General")])
def test_a_decimal_shows_its_scale(scale: int | None, form: str) -> None:
    cell = cell_of(Column("a", "decimal", scale), b"1.50")
    assert (cell.value, cell.data_type, cell.number_format) == (1.5, "n", form)


def test_decimals_of_different_scales_have_formats_of_their_own() -> None:
    wanted = [Column("a", "decimal", 4), Column("b", "decimal", 1), Column("c", "integer"), Column("d", "decimal", 4)]
    row = book_of(file_of(wanted, [(b"1.0000", b"1.0", b"1", b"1.0000")])).active[2]  # type: ignore[index]
    assert [cell.number_format for cell in row] == ["0.0000", "0.0", "0", "0.0000"]


def test_a_long_decimal_keeps_all_its_digits() -> None:
    assert cell_of(Column("a", "decimal", 2), b"12345678901234.50").value == 12345678901234.5
    assert cell_of(Column("a", "decimal", 2), b"12345678901234.56").value == "12345678901234.56"
    digits = "9" * 35 + "." + "1" * 30
    assert cell_of(Column("a", "decimal", 30), digits.encode()).value == digits


@pytest.mark.parametrize("raw", ["1e+20", "2.5E-300", "19.99", "-0.1", "1e307", "0.30000000000000004"])
def test_a_float_is_a_number(raw: str) -> None:
    cell = cell_of("float", raw.encode())
    assert (cell.value, cell.data_type, cell.number_format) == (float(raw), "n", "General")


@pytest.mark.parametrize("raw", ["1.5e308", "1e-308", "4.9e-324", "1e999"])
def test_a_float_that_excel_has_not_is_a_text(raw: str) -> None:
    cell = cell_of("float", raw.encode())
    assert (cell.value, cell.data_type) == (raw, "s")


def test_zero_and_one_are_booleans_and_other_values_numbers() -> None:
    cells = [cell_of("boolean", raw) for raw in (b"0", b"1", b"2", b"-1", None)]
    assert [(cell.value, cell.data_type) for cell in cells] == [
        (False, "b"), (True, "b"), (2, "n"), (-1, "n"), (None, "n"),
    ]  # fmt: skip


# Dates and times


@pytest.mark.parametrize("raw", ["1900-03-01", "2024-02-29", "9999-12-31"])
def test_a_date_is_a_date(raw: str) -> None:
    cell = cell_of("date", raw.encode())
    assert (cell.value, cell.number_format) == (datetime.datetime.fromisoformat(raw), "yyyy-mm-dd")


@pytest.mark.parametrize("raw", ["0000-00-00", "2024-00-00", "1900-02-28", "1000-01-01", "10000-01-01", "yesterday"])
def test_a_date_that_excel_has_not_is_a_text(raw: str) -> None:
    cell = cell_of("date", raw.encode())
    assert (cell.value, cell.data_type, cell.number_format) == (raw, "s", "@")


@pytest.mark.parametrize("clock", ["00:00:00", "00:00:01", "12:00:00", "23:59:59", "10:17:43"])
def test_a_moment_is_a_date_with_its_seconds(clock: str) -> None:
    cell = cell_of("datetime", f"2024-02-29 {clock}".encode())
    assert cell.value == datetime.datetime.fromisoformat(f"2024-02-29T{clock}")
    assert cell.number_format == "yyyy-mm-dd hh:mm:ss"


def test_all_seconds_of_a_day_are_read_back() -> None:
    moments = [datetime.datetime(2024, 2, 29) + datetime.timedelta(seconds=second) for second in range(86_400)]
    rows = [(moment.isoformat(" ").encode(),) for moment in moments]
    assert [cell.value for cell in sheet_of("a:datetime", *rows)["A"][1:]] == moments


def test_a_moment_with_milliseconds_shows_them() -> None:
    for fraction in ("5", "500", "123000", "001"):
        cell = cell_of("datetime", f"2024-02-29 10:00:00.{fraction}".encode())
        assert cell.value == datetime.datetime(2024, 2, 29, 10, 0, 0, int(fraction.ljust(6, "0")))
        assert cell.number_format == "yyyy-mm-dd hh:mm:ss.000"


@pytest.mark.parametrize(
    "raw",
    [
        "2024-02-29 10:00:00.123456", "2024-02-29 10:00:00.0001", "0000-00-00 00:00:00", "2024-00-00 00:00:00",
        "1900-02-28 23:59:59", "2024-02-29 24:00:00", "2024-02-29 10:60:00", "2024-02-29 10:00:00+02:00",
        "2024-02-29x10:00:00", "2024-02-29",
    ],
)  # fmt: skip
def test_a_moment_that_excel_has_not_is_a_text(raw: str) -> None:
    cell = cell_of("datetime", raw.encode())
    assert (cell.value, cell.data_type) == (raw, "s")


def test_a_batch_with_one_odd_moment_keeps_the_others_dates() -> None:
    sheet = sheet_of(
        "a:datetime", (b"2024-02-29 10:00:00",), (None,), (b"0000-00-00 00:00:00",), (b"1999-01-01 00:00:00",)
    )
    moments = [datetime.datetime(2024, 2, 29, 10), None, "0000-00-00 00:00:00", datetime.datetime(1999, 1, 1)]
    assert [cell.value for cell in sheet["A"][1:]] == moments


def test_a_moment_of_a_zone_is_its_local_time_and_the_title_names_the_zone() -> None:
    column = Column("created", "datetime", label="Created", zone="Europe/Berlin")
    rows = [(b"2026-03-29 03:30:00+02:00",), (b"2026-03-29 01:30:00+01:00",), (b"1950-01-01 00:00:00+01:00",)]
    sheet = book_of(file_of([column], rows)).active
    assert [cell.value for cell in sheet["A"]] == [  # type: ignore[index]
        "Created (Europe/Berlin)", datetime.datetime(2026, 3, 29, 3, 30), datetime.datetime(2026, 3, 29, 1, 30),
        datetime.datetime(1950, 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    ["2026-03-29 03:30:00.123456+02:00", "0000-00-00 00:00:00", "2026-03-29 03:30:00", "2026-03-29 03:30:00.12345"],
)
def test_a_moment_without_its_offset_or_finer_than_milliseconds_is_a_text(raw: str) -> None:
    cell = cell_of(Column("a", "datetime", zone="Europe/Berlin"), raw.encode())
    assert (cell.value, cell.data_type) == (raw, "s")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("2026-01-31 12:00:00+05:00", "s"),
        ("2026-01-31 12:00:00-01:00", "s"),
        ("2026-01-31 12:00:00.5+02:00", "s"),
        ("2026-01-31 12:00:00+01:00", "d"),
        ("2026-01-31 12:00:00.5+01:00", "d"),
        ("2026-07-31 12:00:00+01:00", "s"),
        ("2026-10-25 02:59:59+02:00", "d"),
        ("2026-10-25 02:00:00+01:00", "d"),
        ("2026-10-25 03:00:00+02:00", "s"),
        ("2026-10-25 01:59:59+01:00", "s"),
        ("2026-03-29 02:30:00+01:00", "s"),
        ("9999-12-31 23:00:00-05:00", "s"),
        ("2026-02-30 12:00:00+01:00", "s"),
    ],
)
def test_a_moment_with_an_offset_that_is_not_its_zones_is_a_text(raw: str, kind: str) -> None:
    """A sheet shows no offset, and the column's title promises the zone's."""
    column = Column("a", "datetime", zone="Europe/Berlin")
    others = [(b"2026-01-31 12:00:00+01:00",), (b"2026-07-31 12:00:00+02:00",)]
    for rows in ([(raw.encode(),)], [*others, (raw.encode(),)], [(None,), (raw.encode(),)]):
        *before, cell = book_of(file_of([column], rows)).active["A"]  # type: ignore[index]
        assert cell.data_type == kind
        assert kind == "d" or cell.value == raw
        assert "s" not in {other.data_type for other in before[1:]}


def test_a_moment_left_in_utc_is_not_taken_for_local_time() -> None:
    odd = cell_of(Column("a", "datetime", zone="Africa/Monrovia"), b"1950-01-01 00:44:30+00:00")
    assert odd.value == "1950-01-01 00:44:30+00:00"
    local = cell_of(Column("a", "datetime", zone="Europe/London"), b"1950-01-01 00:44:30+00:00")
    assert local.value == datetime.datetime(1950, 1, 1, 0, 44, 30)


@pytest.mark.parametrize("raw", ["00:00:00", "10:20:30", "23:59:59", "24:00:00", "838:59:59", "00:00:01.5"])
def test_a_time_is_a_duration(raw: str) -> None:
    hours, minutes, seconds = raw.split(":")
    cell = cell_of("time", raw.encode())
    assert cell.value == datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    assert cell.number_format == ("[h]:mm:ss.000" if "." in raw else "[h]:mm:ss")


@pytest.mark.parametrize("raw", ["-838:59:59", "-00:00:01", "10:00:00.000001", "10:61:00", "10:00"])
def test_a_time_that_excel_has_not_is_a_text(raw: str) -> None:
    cell = cell_of("time", raw.encode())
    assert (cell.value, cell.data_type) == (raw, "s")


# Texts


@pytest.mark.parametrize(
    "text",
    ["007", "=1+1", "1e5", "TRUE", "2024-02-29", "a,b", "größer 🦀", "a&b<c>d\"e'f", "&amp;", "%b%s", "]]>", "x\ufdd0"],
)
def test_a_text_is_a_text_whatever_it_looks_like(text: str) -> None:
    cell = cell_of("text", text.encode())
    assert (cell.value, cell.data_type) == (text, "s")
    assert 't="inlineStr"' in xml_of(file_of(columns("a"), [(text.encode(),)])).split("</row>")[1]


@pytest.mark.parametrize("kind", ["text", "binary", "json"])
def test_null_and_an_empty_text_stay_apart(kind: str) -> None:
    data = file_of(columns(f"a:{kind} b c"), [(b"", None, b"x"), (None, b"", b"x"), (None, None, None)])
    sheet = book_of(data).active
    assert [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)] == [  # type: ignore[union-attr]
        ["", None, "x"], [None, "", "x"], [None, None, None],
    ]  # fmt: skip
    assert xml_of(data).count("<c/>") == 5


@pytest.mark.parametrize(
    "kind", ["integer", "decimal", "float", "boolean", "date", "datetime", "time", "json", "binary"]
)
def test_null_is_no_cell(kind: str) -> None:
    assert cell_of(kind, None).value is None


@pytest.mark.parametrize("text", [" a", "a ", " ", "a\nb", "\n", "a\tb", "\t"])
def test_spaces_and_line_ends_are_marked_to_be_kept(text: str) -> None:
    assert cell_of("text", text.encode()).value == text
    assert '<t xml:space="preserve">' in xml_of(file_of(columns("a"), [(text.encode(),)])).split("</row>")[1]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\0", "_x0000_"), ("a\x1fb", "a_x001F_b"), ("\r\n", "_x000D_\n"), ("\ufffe\uffff", "_xFFFE__xFFFF_"),
        ("_x0041_", "_x005F_x0041_"), ("_x000d_", "_x005F_x000d_"), ("_x41_", "_x41_"), ("_x0041", "_x0041"),
        ("_x0041_x0042_", "_x005F_x0041_x005F_x0042_"), ("_x0041\x01", "_x005F_x0041_x0001_"),
        ("\x01x0041_", "_x0001_x0041_"), ("_X0041_", "_X0041_"), ("a\x1eb", "a_x001E_b"), ("\x7f\x80", "\x7f\x80"),
    ],
)  # fmt: skip
def test_what_xml_cannot_hold_is_escaped_and_what_looks_escaped_too(text: str, written: str) -> None:
    value = cell_of("text", text.encode()).value
    assert (value, said(value)) == (written, text)


def test_one_odd_text_changes_no_other_of_its_batch() -> None:
    texts = ["a", "\x01", "<", " b", "=1", "", "_x0041_", "c"]
    sheet = sheet_of("a", *((text.encode(),) for text in texts))
    assert [said(cell.value) for cell in sheet["A"][1:]] == texts


def test_binary_is_base64() -> None:
    assert cell_of("binary", b"\0\xff<").value == base64.b64encode(b"\0\xff<").decode()


def test_json_is_a_text() -> None:
    assert cell_of("json", b'{"a": [1, "<"]}').value == '{"a": [1, "<"]}'


@pytest.mark.parametrize("kind", ["text", "json", "integer", "date", "datetime", "time", "boolean"])
@pytest.mark.parametrize("raw", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"a\xffb"])
def test_bytes_that_are_no_text_are_refused(kind: str, raw: bytes) -> None:
    encoder = XLSXEncoder(columns(f"a:{kind}"))
    with pytest.raises(ExportError, match="no UTF-8 text") as refused:
        encoder.encode([(b"b",), (raw,), (None,), (b"c",)])
    assert refused.value.permanent


@pytest.mark.parametrize("text", ["a" * 32_767, "ü" * 32_767, "🦀" * 16_383 + "a"])
def test_the_longest_text_is_whole(text: str) -> None:
    assert cell_of("text", text.encode()).value == text


@pytest.mark.parametrize(
    ("kind", "raw", "length"),
    [
        ("text", b"a" * 40_000, "40,000"), ("text", "🦀".encode() * 16_384, "32,768"), ("json", b"1" * 32_768, "32,768"),
        ("binary", b"\0" * 24_576, "32,768"),
    ],
)  # fmt: skip
def test_a_text_that_is_too_long_is_refused_and_never_cut(kind: str, raw: bytes, length: str) -> None:
    encoder = XLSXEncoder([Column("a", kind, label="Notes")])
    with pytest.raises(ExportError) as refused:
        encoder.encode([(b"x",), (raw,), (None,)])
    assert refused.value.permanent
    assert refused.value.sentence == (
        f"Notes holds a text of {length} characters; Excel cells hold at most 32,767. Leave the column out, or choose "
        "CSV, JSON Lines or Parquet."
    )


@pytest.mark.parametrize("kind", ["integer", "boolean", "date", "datetime", "time"])
def test_a_text_in_a_column_of_another_type_is_never_cut_either(kind: str) -> None:
    with pytest.raises(ExportError, match="A column holds a text of 32,768 characters"):
        XLSXEncoder(columns(f"a:{kind}")).encode([(b"x" * 32_768,)])


FORMULAS = ["=1+1", "@a", "+a", "-a", "\t=1", "\r", "\n=1", "\0", "＝1", "＠a", "＋a", "－a"]
HARMLESS = ["-1.5", "+44 20 7946", "-", "a=1", "", "１", "_x000D_"]


@pytest.mark.parametrize("text", FORMULAS + HARMLESS)
def test_a_text_that_looks_like_a_formula_stays_a_text_when_edited(text: str) -> None:
    cell = cell_of("text", text.encode())
    assert said(cell.value) == text
    assert bool(cell.quotePrefix) == (text in FORMULAS)
    assert not cell_of("text", text.encode(), EXACT).quotePrefix


@pytest.mark.parametrize("kind", ["integer", "date", "datetime", "time", "binary", "json"])
def test_a_formula_in_a_column_of_another_type_stays_a_text_too(kind: str) -> None:
    raw = b"\xfb" if kind == "binary" else b"=1"  # base64 of the byte begins with +
    assert cell_of(kind, raw).quotePrefix
    assert not cell_of(kind, raw, EXACT).quotePrefix


# Sheets


def test_the_header_has_titles_in_bold_and_stays_in_view() -> None:
    wanted = [Column("id", "integer", label="Number"), Column("a<b>&\x01"), Column("=1")]
    sheet = book_of(file_of(wanted, [(b"1", b"x", b"y")])).active
    assert isinstance(sheet, Worksheet)
    assert [said(cell.value) for cell in sheet[1]] == ["Number", "a<b>&\x01", "=1"]
    assert [bool(cell.font.b) for cell in sheet[1]] == [True, True, True]
    assert [bool(cell.quotePrefix) for cell in sheet[1]] == [False, False, True]
    assert not sheet["A2"].font.b
    pane = sheet.sheet_view.pane
    assert pane is not None
    assert (pane.state, pane.topLeftCell, pane.ySplit) == ("frozen", "A2", 1)


def test_the_header_may_have_the_names_of_the_source() -> None:
    wanted = [Column("id", label="Number"), Column("at", "datetime", label="Created", zone="Asia/Tokyo")]
    sheet = book_of(file_of(wanted, options=FileOptions(header="names"))).active
    assert [cell.value for cell in sheet[1]] == ["id", "at (Asia/Tokyo)"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("count", "last"), [(1, "A"), (26, "Z"), (27, "AA"), (702, "ZZ"), (703, "AAA"), (16_384, "XFD")]
)
def test_the_filter_covers_all_rows_and_columns(count: int, last: str) -> None:
    data = file_of([Column(str(index)) for index in range(count)], [(b"x",) * count] * 2, [(b"y",) * count])
    assert f'</sheetData><autoFilter ref="A1:{last}4"/></worksheet>' in xml_of(data)
    named = f"""<definedName name="_xlnm._FilterDatabase" localSheetId="0" hidden="1">'Export'!$A$1:${last}$4</definedName>"""
    assert named in xml_of(data, "xl/workbook.xml")


def test_more_columns_than_excel_has_are_refused() -> None:
    with pytest.raises(ExportError, match="16,385 columns; an Excel sheet holds at most 16,384") as refused:
        XLSXEncoder([Column("a")] * 16_385)
    assert refused.value.permanent


def test_widths_follow_titles_types_and_the_first_values_within_bounds() -> None:
    wanted = [Column("a"), Column("b" * 100), Column("c"), Column("d"), Column("e", "datetime"), Column("f", "integer")]
    row = (b"x", b"x", b"x" * 1000, "ü".encode() * 20, b"2024-02-29 10:00:00", b"12345678901")
    sheet = book_of(file_of(wanted, [row])).active
    widths = [sheet.column_dimensions[letter].width for letter in "ABCDEF"]  # type: ignore[union-attr]
    assert widths == [8, 60, 60, 22, 21, 13]


def test_a_file_without_rows_has_its_header() -> None:
    for batches in range(3):
        sheet = book_of(file_of(columns("a b:integer"), *[()] * batches)).active
        assert [[cell.value for cell in row] for row in sheet.iter_rows()] == [["a", "b"]]  # type: ignore[union-attr]


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
@pytest.mark.parametrize(("count", "sizes"), [(9, [10]), (10, [10, 2]), (18, [10, 10]), (25, [10, 10, 8])])
def test_rows_go_on_in_further_sheets(
    monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int], batch: int
) -> None:
    monkeypatch.setattr(xlsx, "SHEET_ROWS", 10)
    rows = [(str(index).encode(), b"x") for index in range(count)]
    data = file_of(columns("n:integer a"), *(rows[start : start + batch] for start in range(0, count, batch)))
    book = book_of(data)
    assert book.sheetnames == ["Export", "Export 2", "Export 3"][: len(sizes)]
    assert [sheet.max_row for sheet in book.worksheets] == sizes
    assert [sheet.auto_filter.ref for sheet in book.worksheets] == [f"A1:B{size}" for size in sizes]
    assert all(sheet.freeze_panes == "A2" and sheet["A1"].value == "n" for sheet in book.worksheets)
    found = [row[0] for sheet in book.worksheets for row in sheet.iter_rows(min_row=2, values_only=True)]
    assert found == list(range(count))


def test_a_sheet_ends_before_it_passes_what_a_zip_entry_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "SHEET_BYTES", 3000)
    data = file_of(columns("a"), *[[(b"x" * 500,)] for _ in range(12)])
    book = book_of(data)
    assert len(book.worksheets) > 1
    assert sum(sheet.max_row - 1 for sheet in book.worksheets) == 12
    sizes = [entry.file_size for entry in zipfile.ZipFile(io.BytesIO(data)).infolist() if "sheet" in entry.filename]
    assert max(sizes) < 3100


# The archive


def test_the_archive_is_sound_and_knows_its_kind_by_its_first_entries() -> None:
    data = file_of(columns("a"), [(b"x",)])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "_rels/.rels", "xl/styles.xml", "xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels",
            "[Content_Types].xml",
        ]  # fmt: skip
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))


def test_an_archive_of_more_than_4_gib_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "SHEET_ROWS", 10)
    rows: list[Row] = [(b"%d" % n,) for n in range(25)]
    plain = file_of(columns("n:integer"), rows)
    # The ZIP64 form may stand where it is not needed, so a small archive shows it when the bound is lowered.
    monkeypatch.setattr(zipstream, "LARGEST", 1000)
    large = file_of(columns("n:integer"), rows)
    assert b"PK\x06\x06" in large
    assert b"PK\x06\x06" not in plain
    with zipfile.ZipFile(io.BytesIO(large)) as archive:
        assert archive.testzip() is None
    assert _values(large) == _values(plain)


def test_a_sheets_sizes_stand_behind_it_for_readers_of_streams() -> None:
    data = file_of(columns("a"), [(b"x",)])
    entry = zipfile.ZipFile(io.BytesIO(data)).getinfo("xl/worksheets/sheet1.xml")
    end = entry.header_offset + 30 + len(entry.filename) + entry.compress_size
    found = struct.unpack("<4I", data[end : end + 16])
    assert found == (0x08074B50, entry.CRC, entry.compress_size, entry.file_size)


def test_the_same_rows_give_the_same_bytes() -> None:
    rows = random_rows(3, (a_text, an_integer, a_decimal, plain_text, some_bytes))
    wanted = columns("a b:integer c:decimal d e:binary")
    data = file_of(wanted, rows)
    assert data == file_of(wanted, rows)
    times = {entry.date_time for entry in zipfile.ZipFile(io.BytesIO(data)).infolist()}
    assert times == {(1980, 1, 1, 0, 0, 0)}


def test_batches_join_to_the_whole() -> None:
    rows = random_rows(7, (plain_text, an_integer))
    wanted = columns("a b:integer")
    parts, whole = file_of(wanted, rows[:20], [], rows[20:]), file_of(wanted, rows)
    assert _values(parts) == _values(whole)


def _values(data: bytes) -> list[tuple[Any, ...]]:
    return [row for sheet in book_of(data).worksheets for row in sheet.iter_rows(values_only=True)]


def _peak(count: int) -> int:
    encoder = XLSXEncoder(columns("a:integer b c:time"))
    tracemalloc.start()
    encoder.start()
    for start in range(0, count, 1000):
        encoder.encode([_unlike(index) for index in range(start, start + 1000)])
    encoder.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _unlike(index: int) -> Row:
    """A row that has no value in common with any other."""
    return b"%d" % index, b"text %d" % index, b"%d:%02d:%02d" % (10 + index // 3600, index // 60 % 60, index % 60)


def test_memory_does_not_grow_with_the_rows() -> None:
    assert _peak(100_000) < _peak(20_000) + (1 << 20)


# Random tables


TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["_x0041_", "_x005F_", "_x", "=1", " a", "\r\n", "\x1e", "\ufffe"]
)
INTEGER = st.integers(-(10**25), 10**25).map(str)
DECIMAL = st.decimals(allow_nan=False, allow_infinity=False, places=2).map(lambda number: f"{number:.2f}")
FLOAT = st.floats(allow_nan=False, allow_infinity=False).map(repr)
DATE = st.dates().map(str)
MOMENT = st.datetimes().map(lambda moment: moment.isoformat(" "))
KINDS = {"text": TEXT, "integer": INTEGER, "decimal": DECIMAL, "float": FLOAT, "date": DATE, "datetime": MOMENT}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[tuple[str | None, ...]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5))
    row = st.tuples(*(st.none() | KINDS[kind] for kind in kinds))
    return [Column(f"c{index}", kind) for index, kind in enumerate(kinds)], draw(st.lists(row, max_size=8))


@settings(deadline=None)
@given(tables())
def test_a_random_table_is_read_back(table: tuple[list[Column], list[tuple[str | None, ...]]]) -> None:
    wanted, rows = table
    raw = [tuple(None if value is None else value.encode() for value in row) for row in rows]
    sheet = book_of(file_of(wanted, raw)).active
    assert isinstance(sheet, Worksheet)
    for row, cells in zip(rows, sheet.iter_rows(min_row=2, max_row=len(rows) + 1) if rows else (), strict=True):
        for column, value, cell in zip(wanted, row, cells, strict=True):
            assert _same(column, value, cell), (column.type, value, cell.value)
            if column.type == "text":
                assert bool(cell.quotePrefix) == is_formula((value or "").encode())


def _same(column: Column, value: str | None, cell: Any) -> bool:
    found = said(cell.value)
    if value is None or found == value:
        return found == value
    if isinstance(found, datetime.datetime):
        return found == datetime.datetime.fromisoformat(value)
    return column.type != "text" and Decimal(repr(found)) == Decimal(value)


# LibreOffice


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for LibreOffice's profile. It takes two seconds to be made, so the tests share it."""
    assert shutil.which("soffice"), "soffice is missing: apt-get install --no-install-recommends libreoffice-calc-nogui"
    yield tmp_path_factory.mktemp("office")


def in_libreoffice(office: Path, folder: Path, data: bytes) -> dict[str, list[list[str]]]:
    """What LibreOffice shows in each sheet: comma 44, quote 34, UTF-8 76, as shown, every sheet in a file (-1)."""
    (folder / "file.xlsx").write_bytes(data)
    form = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,true,false,false,-1"
    command = ["soffice", f"-env:UserInstallation={office.as_uri()}", "--headless", "--convert-to", form]
    subprocess.run([*command, "--outdir", folder, folder / "file.xlsx"], check=True, capture_output=True, timeout=120)
    files = folder.glob("*.csv")
    return {
        path.stem.removeprefix("file-"): list(csv.reader(io.StringIO(path.read_text("utf-8"), newline="")))
        for path in files
    }


def test_libreoffice_shows_what_the_source_said(office: Path, tmp_path: Path) -> None:
    wanted = [
        Column("id", "integer"), Column("a", label="Text"), Column("p", "decimal", 2), Column("f", "float"),
        Column("d", "date"), Column("at", "datetime", zone="Europe/Berlin"), Column("t", "time"), Column("b", "boolean"),
    ]  # fmt: skip
    rows = [
        ("1", "=1+1", "1.50", "19.99", "2024-02-29", "2026-03-29 03:30:00+02:00", "10:20:30", "1"),
        ("18446744073709551615", " a\nb ", "12345678901234567.89", "-0.5", "0000-00-00", None, "838:59:59", "0"),
        (
            None,
            "_x0041_ <größer> 🦀",
            "-0.05",
            None,
            "1900-02-28",
            "2026-03-29 03:30:00.123456+02:00",
            "-01:00:00",
            None,
        ),
        ("123456789012345", "007", None, "0.25", "9999-12-31", "2026-03-29 03:30:00.500+02:00", None, "1"),
    ]
    data = file_of(wanted, [tuple(None if value is None else value.encode() for value in row) for row in rows])
    shown = in_libreoffice(office, tmp_path, data)["Export"]
    assert shown[0] == ["id", "Text", "p", "f", "d", "at (Europe/Berlin)", "t", "b"]
    meant = [["" if value is None else value for value in row] for row in rows]
    for row in meant:
        row[7] = {"1": "TRUE", "0": "FALSE", "": ""}[row[7]]
    meant[0][5], meant[3][5] = "2026-03-29 03:30:00", "2026-03-29 03:30:00.500"
    assert shown[1:] == meant


def test_libreoffice_opens_all_sheets(office: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "SHEET_ROWS", 10)
    shown = in_libreoffice(office, tmp_path, file_of(columns("n:integer a"), [(b"%d" % n, None) for n in range(25)]))
    assert sorted(shown) == ["Export", "Export 2", "Export 3"]
    assert [row[0] for name in sorted(shown) for row in shown[name][1:]] == [str(n) for n in range(25)]
