"""XLSX (ECMA-376): one workbook as a stream, in further sheets where a sheet is full. Nothing is kept of a row written.

Texts stand in their cells, not in a shared table, and what names the sheets comes at the end of the ZIP.
"""

from __future__ import annotations

from collections.abc import Sequence

from exportapp.engine.encoders import xlsxcells as cells
from exportapp.engine.encoders.xlsxcells import CellWriter
from exportapp.engine.encoders.zipstream import ZipStream
from exportapp.engine.errors import ExportError
from exportapp.engine.runs import Run
from exportapp.engine.specs import Column, FileOptions, Row, Values

SHEET_ROWS = 1_048_576  # with the header; these two: "Excel specifications and limits"
MOST_COLUMNS = 16_384
MOST_VALUES = 20_000  # that are cells at once: each takes ten times the room of its value
SHEET_BYTES = 4_000_000_000  # of XML: zipstream has the reason
MOST_DECIMALS = 30  # behind the point, in a number format
WHOLE_FORMAT, TEXT_FORMAT, OWN_FORMATS = 1, 49, 164  # "0", "@", and the first that is free (18.8.30)

_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_CONTENT = "application/vnd.openxmlformats-officedocument.spreadsheetml"

_WIDTHS = {"boolean": 7, "date": 10, "datetime": 19, "time": 10}
NARROWEST, WIDEST = 8, 60
WIDTH_ROWS = 200  # of the first batch


class XLSXEncoder:
    """Numbers, dates and times as what they are, as long as Excel keeps them exactly; NULL as no cell at all."""

    runs: tuple[Run, ...] = ()

    def __init__(self, columns: Sequence[Column], options: FileOptions = FileOptions()) -> None:
        if len(columns) > MOST_COLUMNS:
            raise ExportError(f"These are {len(columns):,} columns; an Excel sheet holds at most {MOST_COLUMNS:,}. Choose "
                              "fewer, or CSV, JSON Lines or Parquet.", permanent=True)  # fmt: skip
        self._zip = ZipStream()
        self._scales = sorted({scale for scale in map(_scale, columns) if scale is not None})
        self._titles = [_title(column, options) for column in columns]
        self._columns = columns
        self._step = max(1, MOST_VALUES // len(columns))
        writer = CellWriter(options.exact)
        self._writers = [writer.writer(column, self._style(column)) for column in columns]
        titles = b"".join(cells.header(title, options.exact) for title in self._titles)
        self._header = b"<row>" + titles + b"</row>"
        self._widths = b""
        self._rows: list[int] = []  # how many each sheet has, the header among them

    def _style(self, column: Column) -> int:
        if (scale := _scale(column)) is not None:
            return cells.SCALES + self._scales.index(scale)
        return cells.PLAIN if column.type in ("decimal", "float") else cells.WHOLE

    def start(self) -> bytes:
        return self._zip.whole("_rels/.rels", _package()) + self._zip.whole("xl/styles.xml", _styles(self._scales))

    def encode(self, rows: Sequence[Row]) -> bytes:
        parts = []
        while rows:
            if not self._rows or self._rows[-1] >= SHEET_ROWS:
                parts.append(self._next_sheet(rows))
            room = min(self._step, SHEET_ROWS - self._rows[-1])
            xml = self._xml(rows[:room])
            if self._zip.size + len(xml) > SHEET_BYTES and self._rows[-1] > 1:
                parts.append(self._next_sheet(rows))
            parts.append(self._zip.write(xml))
            self._rows[-1] += len(rows[:room])
            rows = rows[room:]
        return b"".join(parts)

    def _xml(self, rows: Sequence[Row]) -> bytes:
        columns = zip(*rows, strict=True)
        filled = [write(values) for write, values in zip(self._writers, columns, strict=True)]
        row = b"<row>" + b"".join(template for template, _ in filled) + b"</row>"
        return b"".join(map(row.__mod__, zip(*(values for _, values in filled), strict=True)))

    def _next_sheet(self, rows: Sequence[Row]) -> bytes:
        end = self._end_sheet() if self._rows else b""
        if not self._rows:
            self._widths = self._measured(rows[:WIDTH_ROWS])
        self._rows.append(1)
        opened = self._zip.open(f"xl/worksheets/sheet{len(self._rows)}.xml")
        head = _sheet_head(first=len(self._rows) == 1) + self._widths + b"<sheetData>" + self._header
        return end + opened + self._zip.write(head)

    def _measured(self, rows: Sequence[Row]) -> bytes:
        batch: list[Values] = list(zip(*rows, strict=True)) or [()] * len(self._columns)
        found = map(_width, self._columns, self._titles, batch)
        widths = [f'<col min="{n}" max="{n}" width="{width}" customWidth="1"/>' for n, width in enumerate(found, 1)]
        return f"<cols>{''.join(widths)}</cols>".encode()

    def _end_sheet(self) -> bytes:
        area = f"A1:{_letters(len(self._columns))}{self._rows[-1]}"
        end = self._zip.write(f'</sheetData><autoFilter ref="{area}"/></worksheet>'.encode())
        return end + self._zip.close()

    def finish(self) -> bytes:
        sheets = b"" if self._rows else self._next_sheet([])
        sheets += self._end_sheet()
        count, write = len(self._rows), self._zip.whole
        workbook = _workbook(self._rows, _letters(len(self._columns)))
        sheets += write("xl/workbook.xml", workbook) + write("xl/_rels/workbook.xml.rels", _relations(count))
        return sheets + write("[Content_Types].xml", _content_types(count)) + self._zip.finish()


def _scale(column: Column) -> int | None:
    shown = column.type == "decimal" and column.scale is not None and 0 <= column.scale <= MOST_DECIMALS
    return column.scale if shown else None


def _title(column: Column, options: FileOptions) -> str:
    title = column.title if options.header == "labels" else column.name
    return f"{title} ({column.zone})" if column.type == "datetime" and column.zone else title


def _width(column: Column, title: str, values: Values) -> int:
    """In characters, with room for the filter's button beside the title."""
    shown = _WIDTHS.get(column.type) or max((_longest_line(value) for value in values if value is not None), default=0)
    return min(max(shown + 2, len(title) + 4, NARROWEST), WIDEST)


def _longest_line(value: bytes) -> int:
    return max(len(line) for line in value[: 4 * WIDEST].decode(errors="replace").split("\n"))


def _letters(number: int) -> str:
    """The name of a column: A, ..., Z, AA, ..., XFD."""
    letters = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def _sheet_head(first: bool) -> bytes:
    selected = ' tabSelected="1"' if first else ""
    pane = '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/><selection pane="bottomLeft"/>'
    view = f'<sheetViews><sheetView{selected} workbookViewId="0">{pane}</sheetView></sheetViews>'
    return f'{_XML}<worksheet xmlns="{_MAIN}">{view}'.encode()


def _package() -> bytes:
    workbook = f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
    return f'{_XML}<Relationships xmlns="{_RELATIONS}">{workbook}</Relationships>'.encode()


def _styles(scales: Sequence[int]) -> bytes:
    """The formats in the order of xlsxcells' numbers. The two fills have to be there: Excel takes them for its own."""
    own = ["yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss", "yyyy-mm-dd hh:mm:ss.000", "[h]:mm:ss", "[h]:mm:ss.000"]
    own += ["0." + "0" * scale if scale else "0" for scale in scales]
    formats = [f'<numFmt numFmtId="{n}" formatCode="{code}"/>' for n, code in enumerate(own, OWN_FORMATS)]
    styles = [_style(), _style(bold=1), _style(bold=1, quoted=1), _style(quoted=1), _style(TEXT_FORMAT)]
    styles += [_style(WHOLE_FORMAT), *(_style(n) for n in range(OWN_FORMATS, OWN_FORMATS + len(own)))]
    fonts = [f'<font>{bold}<sz val="11"/><name val="Calibri"/><family val="2"/></font>' for bold in ("", "<b/>")]
    return (
        f'{_XML}<styleSheet xmlns="{_MAIN}">{_listed("numFmts", formats)}{_listed("fonts", fonts)}'
        + _listed("fills", [f'<fill><patternFill patternType="{kind}"/></fill>' for kind in ("none", "gray125")])
        + _listed("borders", ["<border><left/><right/><top/><bottom/><diagonal/></border>"])
        + _listed("cellStyleXfs", ['<xf numFmtId="0" fontId="0" fillId="0" borderId="0"/>'])
        + _listed("cellXfs", styles)
        + _listed("cellStyles", ['<cellStyle name="Normal" xfId="0" builtinId="0"/>'])
        + "</styleSheet>"
    ).encode()


def _style(number: int = 0, bold: int = 0, quoted: int = 0) -> str:
    more = ' applyNumberFormat="1"' * bool(number) + ' applyFont="1"' * bold + ' quotePrefix="1"' * quoted
    return f'<xf numFmtId="{number}" fontId="{bold}" fillId="0" borderId="0" xfId="0"{more}/>'


def _listed(name: str, items: Sequence[str]) -> str:
    return f'<{name} count="{len(items)}">{"".join(items)}</{name}>'


def _workbook(rows: Sequence[int], last: str) -> bytes:
    names = ["Export", *(f"Export {n}" for n in range(2, len(rows) + 1))]
    sheets = [f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(names, 1)]
    # Excel looks for a filter's range under this name as well.
    filters = [
        f'<definedName name="_xlnm._FilterDatabase" localSheetId="{n}" hidden="1">'
        f"'{name}'!$A$1:${last}${count}</definedName>"
        for n, (name, count) in enumerate(zip(names, rows, strict=True))
    ]
    return (
        f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><bookViews><workbookView/></bookViews>'
        f"<sheets>{''.join(sheets)}</sheets><definedNames>{''.join(filters)}</definedNames></workbook>"
    ).encode()


def _relations(sheets: int) -> bytes:
    targets = [("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, sheets + 1)] + [("styles", "styles.xml")]
    found = [
        f'<Relationship Id="rId{n}" Type="{_OFFICE}/{kind}" Target="{path}"/>'
        for n, (kind, path) in enumerate(targets, 1)
    ]
    return f'{_XML}<Relationships xmlns="{_RELATIONS}">{"".join(found)}</Relationships>'.encode()


def _content_types(sheets: int) -> bytes:
    parts = [("workbook.xml", "sheet.main"), ("styles.xml", "styles")]
    parts += [(f"worksheets/sheet{n}.xml", "worksheet") for n in range(1, sheets + 1)]
    return (
        f'{_XML}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        + "".join(f'<Override PartName="/xl/{path}" ContentType="{_CONTENT}.{kind}+xml"/>' for path, kind in parts)
        + "</Types>"
    ).encode()
