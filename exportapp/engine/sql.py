"""Writes SELECTs from specs, in the dialect that a reader gives. Identifiers are quoted, values only ever bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from exportapp.engine.specs import Column, Condition, Key, KeyRange, Query

Value = int | float | str | bytes
Values = list[Value]


@dataclass(frozen=True)
class Dialect:
    """How a database quotes identifiers, marks a bound value, and gives a text's own bytes in UTF-8."""

    quote: str
    mark: str
    bytes_of: str

    def name(self, identifier: str) -> str:
        """A quoted identifier; a qualified one (`schema.table`) is quoted part by part."""
        return ".".join(self._quoted(part) for part in identifier.split("."))

    def column(self, column: Column) -> str:
        """A column's name is a single identifier, whatever dots it has."""
        return self._quoted(column.name)

    def key(self, column: Column) -> str:
        """A column as keys are compared and ordered by."""
        return self.column(column)

    def _quoted(self, identifier: str) -> str:
        return self.quote + identifier.replace(self.quote, self.quote * 2) + self.quote


def bound(column: Column, value: int | str) -> Value:
    """A key or filter value as the driver is to send it: numbers as numbers (a text would be compared as a float)."""
    if column.type in ("integer", "boolean"):
        return int(value)
    if column.type == "float":
        return float(value)
    if column.type == "binary":
        return bytes.fromhex(str(value))
    return str(value)


def _compare(operator: str) -> Callable[[Dialect, Condition], tuple[str, Values]]:
    def write(dialect: Dialect, condition: Condition) -> tuple[str, Values]:
        value = bound(condition.column, condition.values[0])
        return f"{dialect.column(condition.column)} {operator} {_marker(dialect, condition.column, value)}", [value]

    return write


def _marker(dialect: Dialect, column: Column, value: object) -> str:
    # A decimal bound as text is compared as a float by MySQL and as a text by SQLite; the cast keeps it a number. Its
    # scale is the value's own: one of 30 would leave 35 digits before the point, and cut a longer number to nines.
    if column.type != "decimal":
        return dialect.mark
    places = len(f"{Decimal(str(value)):f}".partition(".")[2])
    return f"CAST({dialect.mark} AS DECIMAL(65,{min(places, 30)}))"


def _contains(dialect: Dialect, condition: Condition) -> tuple[str, Values]:
    text = condition.values[0]
    for special in ("!", "%", "_"):
        text = text.replace(special, "!" + special)
    return f"{dialect.column(condition.column)} LIKE {dialect.mark} ESCAPE '!'", [f"%{text}%"]


def _one_of(dialect: Dialect, condition: Condition) -> tuple[str, Values]:
    values: Values = [bound(condition.column, value) for value in condition.values]
    marks = ", ".join(_marker(dialect, condition.column, value) for value in values)
    return f"{dialect.column(condition.column)} IN ({marks})", values


def _exactly(dialect: Dialect, condition: Condition) -> tuple[str, Values]:
    # A collation takes "Alice", "Álice" and "alice " for one: fine to search by, and wrong to grant by. The first half is
    # for the index.
    text, values = _one_of(dialect, condition)
    marks = ", ".join([dialect.mark] * len(values))
    exact = [value.encode() for value in condition.values]
    return f"({text} AND {dialect.bytes_of.format(dialect.column(condition.column))} IN ({marks}))", [*values, *exact]


def _empty(dialect: Dialect, condition: Condition) -> tuple[str, Values]:
    name = dialect.column(condition.column)
    return (f"({name} IS NULL OR {name} = '')" if condition.column.type == "text" else f"{name} IS NULL"), []


def _not_empty(dialect: Dialect, condition: Condition) -> tuple[str, Values]:
    name = dialect.column(condition.column)
    return (f"({name} IS NOT NULL AND {name} <> '')" if condition.column.type == "text" else f"{name} IS NOT NULL"), []


def key_after(dialect: Dialect, columns: Sequence[Column], key: Key, *, inclusive_below: bool) -> tuple[str, Values]:
    """Rows after `key` (or, `inclusive_below`, up to and with it) in the order of `columns`; `key` may name only the first.

    A row comparison, `(a, b) > (x, y)`, says the same but is no range to MySQL's optimizer (manual, "Range
    Optimization of Row Constructor Expressions"); spelled out it is, given the leading column's plain bound.
    """
    step, edge = ("<", "<=") if inclusive_below else (">", ">")
    columns = columns[: len(key)]
    parts: list[str] = []
    values: Values = []
    for depth in range(len(columns)):
        equal = [f"{dialect.key(column)} = {dialect.mark}" for column in columns[:depth]]
        last = edge if depth == len(columns) - 1 else step
        parts.append("(" + " AND ".join([*equal, f"{dialect.key(columns[depth])} {last} {dialect.mark}"]) + ")")
        values += [bound(columns[index], key[index]) for index in range(depth + 1)]
    if len(parts) == 1:
        return parts[0], values
    lead = f"{dialect.key(columns[0])} {step}= {dialect.mark}"
    return f"({lead} AND ({' OR '.join(parts)}))", [bound(columns[0], key[0]), *values]


def where(dialect: Dialect, query: Query, key_range: KeyRange) -> tuple[str, Values]:
    """The WHERE clause ('' when there is nothing to restrict) and its values in order."""
    parts = [OPERATORS[condition.op](dialect, condition) for condition in query.conditions]
    if key_range.after is not None:
        parts.append(key_after(dialect, query.key, key_range.after, inclusive_below=False))
    if key_range.upto is not None:
        parts.append(key_after(dialect, query.key, key_range.upto, inclusive_below=True))
    clause = " WHERE " + " AND ".join(text for text, _ in parts) if parts else ""
    return clause, [value for _, values in parts for value in values]


def with_null_key(dialect: Dialect, query: Query) -> tuple[str, Values]:
    """A SELECT that gives a row if any row of the query has NULL in its key."""
    clause, values = where(dialect, query, KeyRange())
    nulls = " OR ".join(f"{dialect.column(column)} IS NULL" for column in query.key)
    both = f"{clause} AND ({nulls})" if clause else f" WHERE {nulls}"
    return f"SELECT 1 FROM {source(dialect, query)}{both} LIMIT 1", values


def source(dialect: Dialect, query: Query) -> str:
    """What stands after FROM."""
    return f"({query.relation}) AS export_rows" if query.is_query else dialect.name(query.relation)


def order(dialect: Dialect, query: Query, direction: str = "") -> str:
    """The ORDER BY clause; '' for a query without a key."""
    names = [dialect.key(column) + direction for column in query.key]
    return f" ORDER BY {', '.join(names)}" if names else ""


def comment(text: str) -> str:
    """A leading comment that cannot end early; the server's process list shows it."""
    return f"/* {text.replace('*', '')} */ " if text else ""


def comment_of(statement: str) -> str:
    """The comment that a statement begins with, '' without one."""
    head, end, _ = statement.partition(" */")
    return head.removeprefix("/* ") if end and head.startswith("/* ") else ""


OPERATORS: dict[str, Callable[[Dialect, Condition], tuple[str, Values]]] = {
    "eq": _compare("="),
    "ge": _compare(">="),
    "gt": _compare(">"),
    "le": _compare("<="),
    "lt": _compare("<"),
    "in": _one_of,
    "exactly": _exactly,
    "contains": _contains,
    "empty": _empty,
    "not_empty": _not_empty,
}
