"""The formats that a file can have. A new one is a module beside this and an entry here."""

from exportapp.engine.encoders.base import Format
from exportapp.engine.encoders.delimited import CSVEncoder, TSVEncoder
from exportapp.engine.encoders.jsonlines import JSONLinesEncoder

FORMATS: dict[str, Format] = {
    "csv": Format(
        "CSV", "Opens in every spreadsheet and program", "csv", "text/csv; charset=utf-8", CSVEncoder,
        options=frozenset({"header", "delimiter", "bom", "null", "exact"}),
    ),
    "tsv": Format(
        "TSV", "Like CSV, with tabs between the values", "tsv", "text/tab-separated-values; charset=utf-8", TSVEncoder,
        options=frozenset({"header", "bom", "null", "exact"}),
    ),
    "jsonl": Format(
        "JSON Lines", "One JSON object a row, for programs", "jsonl", "application/x-ndjson", JSONLinesEncoder
    ),
}  # fmt: skip
