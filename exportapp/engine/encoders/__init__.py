"""The formats that a file can have. A new one is a module beside this and a line here."""

from exportapp.engine.encoders.base import Format
from exportapp.engine.encoders.delimited import CSVEncoder
from exportapp.engine.encoders.jsonlines import JSONLinesEncoder

FORMATS: dict[str, Format] = {
    "csv": Format("CSV", "Opens in every spreadsheet and program", "csv", "text/csv; charset=utf-8", CSVEncoder),
    "jsonl": Format(
        "JSON Lines", "One JSON object a row, for programs", "jsonl", "application/x-ndjson", JSONLinesEncoder
    ),
}
