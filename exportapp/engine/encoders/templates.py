"""Rows through bytes templates: one `template % row` writes a row without touching its values one by one.

`%b` refuses None. Where NULLs are, columns that hold any have their fields made value by value, the others not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from exportapp.engine.specs import Row

Values = Sequence[bytes | None]
TEMPLATES_KEPT = 1000
BETWEEN = b"\x7f"  # the one control character that neither JSON escapes nor texts hold


def changed(column: Values, all_at_once: Callable[[bytes], bytes], one: Callable[[bytes], bytes]) -> Values:
    """The column with its texts changed, NULLs left: all in one go where `BETWEEN` is in none of them, else one by one.

    The very same column where nothing changed.
    """
    there = [value for value in column if value is not None]
    joined = BETWEEN.join(there)
    if joined.count(BETWEEN) != len(there) - 1:
        return [None if value is None else one(value) for value in column]
    after = all_at_once(joined)
    if after == joined:
        return column
    texts = after.split(BETWEEN)
    if len(texts) == len(column):
        return texts
    following = iter(texts)
    return [None if value is None else next(following) for value in column]


class RowTemplates:
    """Templates for rows of `fields`; `join` makes a row of its fields.

    `nulls` is what stands for NULL in each; where that is None, NULL raises TypeError.
    """

    def __init__(self, fields: Sequence[bytes], nulls: Values, join: Callable[[Sequence[bytes]], bytes]) -> None:
        self._fields = fields
        self._nulls = nulls
        self._join = join
        self._full = join(fields)
        self._templates: dict[tuple[bool, ...], bytes] = {}

    def rows(self, rows: Iterable[Row]) -> bytes | None:
        """The rows as they are; None when one of them holds NULL."""
        try:
            return b"".join(map(self._full.__mod__, rows))
        except TypeError:
            return None

    def columns(self, columns: Sequence[Values]) -> bytes:
        """The rows that stand across `columns`, with whatever NULLs they hold."""
        holed = tuple(None in column for column in columns)
        if not any(holed):
            return b"".join(map(self._full.__mod__, zip(*columns, strict=True)))
        ready = [
            [null if value is None else field % value for value in column] if hole else column
            for column, field, null, hole in zip(columns, self._fields, self._nulls, holed, strict=True)
        ]
        return b"".join(map(self._template(holed).__mod__, zip(*ready, strict=True)))

    def _template(self, holed: tuple[bool, ...]) -> bytes:
        template = self._templates.get(holed)
        if template is None:
            if len(self._templates) >= TEMPLATES_KEPT:
                self._templates.clear()
            fields = [b"%b" if hole else field for field, hole in zip(self._fields, holed, strict=True)]
            template = self._templates[holed] = self._join(fields)
        return template
