"""The formats that a file can have. A new one is a module beside this and an entry here."""

from exportapp.engine.encoders.base import Format, Typical
from exportapp.engine.encoders.delimited import CSVEncoder, TSVEncoder, told
from exportapp.engine.encoders.jsonlines import JSONLinesEncoder
from exportapp.engine.encoders.jsonscan import MOST_DEEP
from exportapp.engine.encoders.parquet import ParquetEncoder
from exportapp.engine.encoders.xlsx import MOST_COLUMNS, XLSXEncoder

FORMATS: dict[str, Format] = {
    "csv": Format(
        "CSV", "For every program. Spreadsheets cut leading zeros and numbers beyond 15 digits; Excel keeps them", "csv",
        "text/csv; charset=utf-8", CSVEncoder,
        options=frozenset({"header", "delimiter", "bom", "null", "exact"}), told=told,
    ),
    "tsv": Format(
        "TSV", "Like CSV, with tabs between the values", "tsv", "text/tab-separated-values; charset=utf-8", TSVEncoder,
        options=frozenset({"header", "bom", "null", "exact"}), told=told,
    ),
    "jsonl": Format(
        "JSON Lines", "One JSON object a row, for programs", "jsonl", "application/x-ndjson", JSONLinesEncoder,
        typical=Typical(names=True),
        limits=f"A value of a JSON column that is nested more than {MOST_DEEP} levels deep is a text.",
    ),
    "xlsx": Format(
        "Excel", "A workbook with real numbers and dates, for Excel and LibreOffice", "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", XLSXEncoder,
        joins=False, options=frozenset({"header", "exact"}), compressions=("none",), max_columns=MOST_COLUMNS,
        typical=Typical(share=0.4, fixed=2300, speed=6.0),
        limits="A cell holds at most 32,767 characters: longer texts are refused. A sheet holds at most 1,048,576 rows: "
        "further rows go on in further sheets. Integers and decimals of more than 15 digits, times finer than milliseconds "
        "and dates before 1900-03-01 are texts, with all their digits. Times of a zone lose their offset: the header names "
        "the zone.",
        told=lambda options, width: "Texts are cells of text and never formulas"
        + (", but not marked as such for those who edit them." if options.exact else ", also for those who edit them."),
    ),
    "parquet": Format(
        "Parquet", "Typed columns, small and fast, for data tools", "parquet", "application/vnd.apache.parquet",
        ParquetEncoder, joins=False, compressions=("none",), typical=Typical(share=0.4, fixed=700, speed=15.0),
        limits="Values that its types have not are refused, such as the date 0000-00-00, and numbers with more digits than "
        "their type keeps. Times of day and spans (TIME) are texts.",
    ),
}  # fmt: skip
