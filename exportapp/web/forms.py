"""The export form: turns what was typed into a recipe, and puts each problem beside its field."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from itertools import zip_longest
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.http import QueryDict
from django.utils import timezone

from exportapp import recipes
from exportapp.datasets import Dataset, DatasetColumn
from exportapp.engine.compression import COMPRESSIONS
from exportapp.engine.encoders import FORMATS
from exportapp.engine.encoders.delimited import DELIMITERS, NULLS
from exportapp.engine.specs import FileOptions, Recipe, RecipeFilter, to_json

_ANCHORS = {"start": "id_start", "end": "id_end", "zone": "id_zone", "columns": "columns", "format": "formats",
            "compression": "formats", "options": "options"}  # fmt: skip
_HELPERS = ("add_filter", "remove_filter", "preset", "use_format")  # buttons that change the form and start nothing
_KINDS = {
    "integer": "whole number", "decimal": "number", "float": "number", "text": "text", "date": "date",
    "datetime": "date and time", "time": "time of day", "boolean": "yes or no", "json": "JSON", "binary": "bytes",
}  # fmt: skip
DELIMITED = ("csv", "tsv")  # what a spreadsheet opens and guesses the types of
_IDS = re.compile(
    r"\b(ids?|no|nos|nr|numbers?|zip|postcodes?|postal|phones?|mobile|fax|tracking|sku|codes?|barcodes?|ean|gtin|isbn|"
    r"iban|vat|cards?|accounts?|serials?|references?)\b"
)
_ZEROS = re.compile(r"(zeros? in front|leading zeros?)")
_DIGITS = re.compile(r"\b(\d+) digits\b")
_KEPT_DIGITS = 15


@dataclass
class FilterRow:
    """One condition as it stands in the form. `low` is also the only value; several are separated by commas."""

    column: str = ""
    op: str = ""
    low: str = ""
    high: str = ""
    error: str = ""

    @property
    def used(self) -> bool:
        return bool(self.column or self.low.strip() or self.high.strip())

    @property
    def values(self) -> tuple[str, ...]:
        kind = recipes.FILTERS.get(self.op)
        if kind is None or kind.values == 0:
            return ()
        if kind.values is None:
            return tuple(value.strip() for value in self.low.split(",") if value.strip())
        return (self.low, self.high) if kind.values == 2 else (self.low,)


class ExportForm(forms.Form):
    """What a person fills in for one dataset. After `is_valid`, `recipe` is without problems."""

    token = forms.CharField(max_length=64, widget=forms.HiddenInput)
    name = forms.CharField(max_length=200, required=False, label="Name of the file")
    start = forms.CharField(required=False, label="From")
    end = forms.CharField(required=False, label="Until, not included")
    zone = forms.CharField(required=False, label="Time zone")
    notify = forms.BooleanField(required=False, label="Mail me when it is ready")
    header = forms.ChoiceField(required=False, label="First row", choices=list(recipes.HEADERS.items()))
    delimiter = forms.ChoiceField(required=False, label="Between the values", choices=list(DELIMITERS.items()))
    null = forms.ChoiceField(required=False, label="For missing values", choices=list(NULLS.items()))
    bom = forms.BooleanField(required=False, label="With a byte order mark, for older Excel")
    exact = forms.BooleanField(
        required=False, label="Machine exact: leave texts that look like formulas as they are. Not for spreadsheets"
    )
    consistency = forms.ChoiceField(
        required=False, label="Reading", choices=list(recipes.CONSISTENCIES.items()), widget=forms.RadioSelect
    )

    recipe: Recipe

    def __init__(self, dataset: Dataset, data: QueryDict | None = None, recipe: Recipe | None = None) -> None:
        self.asked = data is not None and not any(name in data for name in _HELPERS)  # for an export, and no help
        data = data if data is None or self.asked else _helped(dataset, data)
        defaults = {"consistency": "chunked", **asdict(FileOptions())}
        super().__init__(data, initial={"token": uuid.uuid4().hex, "notify": True, **defaults, **_first_range(dataset)})
        self.dataset = dataset
        self.problems: recipes.Problems = {}  # by field, also for those that are no Django fields
        self.columns = [column.name for column in dataset.columns if column.selected]
        self.format, self.compression = "csv", "none"
        self.filter_rows: list[FilterRow] = []
        if recipe is not None:
            self._fill(recipe)
        if data is not None:
            self.columns = data.getlist("columns")
            self.format, self.compression = data.get("format", ""), data.get("compression", "")
            self.filter_rows = _filter_rows(data)
        if not self.filter_rows or (data is not None and "add_filter" in data):
            self.filter_rows.append(FilterRow())

    def _fill(self, recipe: Recipe) -> None:
        self.initial.update(start=recipe.start, end=recipe.end, zone=recipe.zone, consistency=recipe.consistency)
        self.initial.update(asdict(recipe.options))
        self.columns, self.format, self.compression = list(recipe.columns), recipe.format, recipe.compression
        for item in recipe.filters:
            low, high = (*item.values, "", "")[:2] if item.op == "between" else (", ".join(item.values), "")
            self.filter_rows.append(FilterRow(item.column, item.op, low, high))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        used = [row for row in self.filter_rows if row.used]
        self.recipe = Recipe(
            dataset=self.dataset.name,
            columns=tuple(self.columns),
            format=self.format,
            compression=self.compression,
            start=cleaned.get("start", ""),
            end=cleaned.get("end", ""),
            zone=cleaned.get("zone") or "UTC",
            filters=tuple(RecipeFilter(row.column, row.op, row.values) for row in used),
            options=recipes.heeded(self.format, self._options(cleaned)),
            consistency=cleaned.get("consistency") or "chunked",
        )
        for field, sentence in recipes.problems(self.recipe, self.dataset).items():
            if field.startswith("filters."):
                row = used[int(field.partition(".")[2])]
                if not row.column:  # a value without a column may not be dropped: the file would hold more than meant
                    sentence = (
                        f"Choose the column that “{(row.low or row.high)[:40]}” is about, or remove the condition."
                    )
                row.error = sentence
            self.add_error(field if field in self.fields else None, sentence)
            self.problems[field] = sentence
        return cleaned

    @property
    def request_key(self) -> str:
        """The same for the same form sent twice, and another when something was changed before it was sent again."""
        asked = [
            self.cleaned_data["token"],
            self.cleaned_data["name"],
            self.cleaned_data["notify"],
            to_json(self.recipe),
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    @staticmethod
    def _options(cleaned: dict[str, Any]) -> FileOptions:
        """The options that were chosen; a field that the page did not send is at its default."""
        chosen = {name: cleaned[name] for name in asdict(FileOptions()) if cleaned.get(name)}
        return FileOptions(**chosen)

    def option_fields(self) -> list[dict[str, Any]]:
        """The fields of FileOptions, with the formats that heed each."""
        return [
            {"field": self[name], "formats": [key for key, entry in FORMATS.items() if name in entry.options]}
            for name in asdict(FileOptions())
        ]

    @staticmethod
    def formats_with() -> dict[str, list[str]]:
        """The formats that leave a choice of compression, of reading, and any choice at all besides the first."""
        return {
            "compressions": [key for key, entry in FORMATS.items() if len(entry.compressions) > 1],
            "parts": [key for key, entry in FORMATS.items() if entry.joins],
            "choices": [key for key, entry in FORMATS.items() if entry.options or entry.joins],
        }

    def told(self) -> list[tuple[str, str]]:
        """Every mistake, as the id of what it is about ('' for the form itself) and its sentence."""
        told = [(_ANCHORS.get(field, "filters"), sentence) for field, sentence in self.problems.items()]
        for name, sentences in self.errors.items():
            label = self[name].label if name in self.fields else ""
            for sentence in sentences:
                if sentence not in self.problems.values():
                    told.append((f"id_{name}" if label else "", f"{label}: {sentence}" if label else str(sentence)))
        return told

    def time_fields(self) -> list[forms.BoundField]:
        """The range, where the dataset has a time to choose by, and the zone, where it has times at all."""
        if self.dataset.time_column:
            return [self["start"], self["end"], self["zone"]]
        return [self["zone"]] if self.has_times() else []

    def has_times(self) -> bool:
        return any(column.type == "datetime" for column in self.dataset.columns)

    def column_choices(self) -> list[dict[str, Any]]:
        """All columns, the ticked ones in their chosen order; the others stay where the dataset has them."""
        known = {column.name: (at, column) for at, column in enumerate(self.dataset.columns)}
        chosen = [name for name in dict.fromkeys(self.columns) if name in known]
        ticked, ordered = set(chosen), iter(chosen)
        names = [next(ordered) if name in ticked else name for name in known]
        return [
            {
                "column": column,
                "ticked": name in ticked,
                "at": at,
                "kind": "choice" if column.choices else _KINDS[column.type],
                "danger": danger(column),
            }
            for name, (at, column) in ((name, known[name]) for name in names)
        ]

    def damaged(self) -> list[dict[str, str]]:
        """The ticked columns that a spreadsheet would change when it opens the file, as label, and why."""
        if self.format not in DELIMITED:
            return []
        columns = [column for name in self.columns if (column := self.dataset.column(name))]
        return [{"label": column.label, "why": why} for column in columns if (why := danger(column))]

    def presets(self) -> list[Preset]:
        return presets(timezone.now(), self.dataset, str(self["zone"].value() or ""))

    def typed_range(self) -> tuple[str, str]:
        """The range that stands in the fields now."""
        return str(self["start"].value() or ""), str(self["end"].value() or "")

    def format_choices(self) -> list[dict[str, Any]]:
        return [{"key": key, "entry": entry, "chosen": key == self.format} for key, entry in FORMATS.items()]

    def compression_choices(self) -> list[dict[str, Any]]:
        return [
            {
                "key": key,
                "entry": entry,
                "chosen": key == self.compression,
                "formats": [name for name, form in FORMATS.items() if key in form.compressions],
            }
            for key, entry in COMPRESSIONS.items()
        ]

    def default_name(self) -> str:
        """What the file is called when the person gives no name."""
        days = [str(self.cleaned_data.get(end) or "")[:10] for end in ("start", "end")]
        return " ".join(
            [self.dataset.label, *(f"{word} {day}" for word, day in zip(("from", "to"), days, strict=True) if day)]
        )


def _filter_rows(data: QueryDict) -> list[FilterRow]:
    lists = [data.getlist(f"filter-{part}") for part in ("column", "op", "low", "high")]
    rows = [FilterRow(*parts) for parts in zip_longest(*lists, fillvalue="")]
    removed = data.get("remove_filter", "")
    return [row for index, row in enumerate(rows) if row.used and str(index) != removed]


def _helped(dataset: Dataset, data: QueryDict) -> QueryDict:
    """What was typed, with what the pressed button puts into other fields."""
    data = data.copy()
    chosen = {one.key: one for one in presets(timezone.now(), dataset, data.get("zone", ""))}.get(
        data.get("preset", "")
    )
    if chosen:
        data["start"], data["end"] = chosen.start, chosen.end
    if (form := FORMATS.get(data.get("use_format", ""))) is not None:
        data["format"] = data.get("use_format", "")
        if data.get("compression", "") not in form.compressions:
            data["compression"] = form.compressions[0]
    return data


def danger(column: DatasetColumn) -> str:
    """Why a spreadsheet may change the values of a column when it opens a delimited file; '' when it will not.

    Goes by what is declared, for no value is known here: by what the description says of digits, and for texts also by
    names of what looks like a number and is none.
    """
    told = column.description.lower()
    if column.type not in ("text", "integer", "decimal") or column.choices:
        return ""
    if any(int(digits) > _KEPT_DIGITS for digits in _DIGITS.findall(told)):
        return f"more than {_KEPT_DIGITS} digits"
    if column.type != "text":
        return ""
    if _ZEROS.search(told):
        return "zeros in front"
    named = f"{column.name} {column.label}".lower().replace("_", " ")
    return "perhaps zeros in front or many digits" if _IDS.search(named) else ""


def _first_range(dataset: Dataset) -> dict[str, str]:
    """The month before this one: complete, and small enough for a first try. No range without a time to choose by."""
    if not dataset.time_column:
        return {"zone": dataset.stored_zone}
    end = timezone.now().date().replace(day=1)
    start = _months_before(end, 1)
    return {"start": _typed(start, dataset), "end": _typed(end, dataset), "zone": dataset.stored_zone}


def _typed(day: date, dataset: Dataset) -> str:
    return day.isoformat() if dataset.time_is_day else f"{day.isoformat()} 00:00"


def _months_before(month: date, number: int) -> date:
    for _ in range(number):
        month = (month - timedelta(days=1)).replace(day=1)
    return month


@dataclass(frozen=True)
class Preset:
    """A range that people often want: as the fields have it, both '' for all there is."""

    key: str
    label: str
    start: str
    end: str


def presets(now: datetime, dataset: Dataset, zone: str) -> list[Preset]:
    """The ranges that are whole days of a zone and no longer than the dataset allows; none without a time to choose by."""
    if not dataset.time_column:
        return []
    day = now.astimezone(ZoneInfo(zone if zone in available_timezones() else "UTC")).date()
    tomorrow, month = day + timedelta(days=1), day.replace(day=1)
    quarter = month.replace(month=month.month - (month.month - 1) % 3)
    spans = [
        ("today", "Today", day, tomorrow),
        ("yesterday", "Yesterday", day - timedelta(days=1), day),
        ("last-7", "Last 7 days", day - timedelta(days=7), day),
        ("last-30", "Last 30 days", day - timedelta(days=30), day),
        ("last-month", "Last month", _months_before(month, 1), month),
        ("last-quarter", "Last quarter", _months_before(quarter, 3), quarter),
        ("this-year", "Year to date", day.replace(month=1, day=1), tomorrow),
    ]
    most = dataset.max_days
    if most:  # nobody may have all: the longest range that ends now stands for it
        spans.append(("longest", "Longest", tomorrow - timedelta(days=most), tomorrow))
    fit = [
        Preset(key, label, _typed(start, dataset), _typed(end, dataset))
        for key, label, start, end in spans
        if not most or (end - start).days <= most
    ]
    return fit if most else [*fit, Preset("all", "All", "", "")]
