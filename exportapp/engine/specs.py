"""The engine's vocabulary: frozen values that travel as JSON between form, database, worker and Lambda."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union

KeyValue = int | str
Key = tuple[KeyValue, ...]
Row = tuple[bytes | None, ...]
Values = Sequence[bytes | None]  # of one column

NUMBER_TYPES = frozenset({"integer", "decimal", "float"})
MOMENT_TYPES = frozenset({"date", "datetime", "time"})
COLUMN_TYPES = frozenset({"text", "boolean", "json", "binary"}) | NUMBER_TYPES | MOMENT_TYPES
KEY_TYPES = frozenset({"integer", "text", "binary", "date", "datetime"})  # exact under comparison; floats are not

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column as the file names and types it.

    A reader's `typed` fills in what the source knows: `scale` and `precision` are a decimal's digits behind the point
    and in all, `bits` the size of an integer or a float, `padded` numbers that may begin with zeros (ZEROFILL, YEAR) or
    be written in another way that JSON has not, `bare` that the source's own text of a value may stand in a file as it
    is, and has neither delimiters nor quotes. `zone` is the zone that a datetime is in, '' when nobody has said: in
    the columns that an encoder gets, each value of a datetime with a zone ends in its offset, "+02:00".
    """

    name: str
    type: str = "text"
    scale: int | None = None
    label: str = ""
    zone: str = ""
    precision: int | None = None
    bits: int | None = None
    unsigned: bool = False
    padded: bool = False
    bare: bool = False

    @property
    def title(self) -> str:
        """The name that people read."""
        return self.label or self.name

    @property
    def plain_number(self) -> bool:
        """Whether the source itself writes the column's numbers, in the one form that JSON has as well."""
        return not self.padded and (self.bits is not None or self.precision is not None)


@dataclass(frozen=True)
class Condition:
    """One restriction on rows. `op` is a key of `sql.OPERATORS`; `values` are typed texts, bound and never pasted."""

    column: Column
    op: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query:
    """Which rows and columns to read: everything about the SELECT but the key range.

    `relation` is the name of a table or view, or the text of a SELECT when `is_query`. Without a `key` the rows
    have no order that could be resumed: they are read in one go.
    """

    relation: str
    is_query: bool
    columns: tuple[Column, ...]
    key: tuple[Column, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def read(self) -> tuple[Column, ...]:
        """What a reader gives of each row: the columns, then those of the key that are not among them."""
        names = {column.name for column in self.columns}
        return (*self.columns, *(column for column in self.key if column.name not in names))

    @property
    def key_places(self) -> tuple[int, ...]:
        """Where in a row that was read the key's values are."""
        names = [column.name for column in self.read]
        return tuple(names.index(column.name) for column in self.key)


@dataclass(frozen=True)
class KeyRange:
    """Rows whose key k satisfies after < k <= upto; None leaves that side open."""

    after: Key | None = None
    upto: Key | None = None


@dataclass(frozen=True)
class Plan:
    """The coarse cut of a query: ranges in key order, and how many rows they hold (`exact` when counted)."""

    ranges: tuple[KeyRange, ...]
    rows: int
    exact: bool


@dataclass(frozen=True)
class FileOptions:
    """How a file is written, where its format leaves a choice (`Format.options`).

    `header` takes "labels" or "names"; `null` is what stands for NULL. Unless `exact`, a text that a spreadsheet would
    take for a formula is made harmless: encoders.formulas has the rule.
    """

    header: str = "labels"
    delimiter: str = ","
    bom: bool = False
    null: str = ""
    exact: bool = False


@dataclass(frozen=True)
class ChunkSpec:
    """One piece of work for the engine. `comment` marks its queries, so that they can be found on the server.

    `first` says that the piece opens its file, `whole` that it must not end early. Times whose zone is known are written
    in `zone`; '' leaves them as they are.
    """

    query: Query
    range: KeyRange
    format: str
    compression: str
    name: str
    first: bool
    comment: str
    seconds: float
    options: FileOptions = FileOptions()
    zone: str = ""
    whole: bool = False


@dataclass(frozen=True)
class PieceResult:
    """The immutable file that a chunk wrote. `last_key` is set when rows of the range were left for a remainder.

    `zoned` has the titles of the columns whose times were written in the zone of the spec.
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    last_key: Key | None = None
    zoned: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileResult:
    """A finished file under its final name."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RecipeFilter:
    """A filter as a person chose it: `op` is a key of `recipes.FILTERS`."""

    column: str
    op: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What a person asked for. `start` and `end` (excluded) are local ISO times in `zone`, or '' for no bound."""

    dataset: str
    columns: tuple[str, ...]
    format: str = "csv"
    compression: str = "none"
    start: str = ""
    end: str = ""
    zone: str = "UTC"
    filters: tuple[RecipeFilter, ...] = ()
    options: FileOptions = FileOptions()
    consistency: str = "chunked"


def to_json(spec: Any) -> dict[str, Any]:
    """A spec as a plain dict of JSON values."""
    return dataclasses.asdict(spec)


def from_json(kind: type[T], data: Any) -> T:
    """The spec of type `kind` that `to_json` made `data` from. Unknown keys are ignored: a newer version wrote them."""
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _revive(hints[name], value) for name, value in data.items() if name in known})


def _revive(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        return _revive(inner[0], value) if len(inner) == 1 else value
    if origin is tuple:
        return tuple(_revive(args[0], item) for item in value)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    return value
