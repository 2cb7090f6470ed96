"""Rows through bytes templates: one `template % row` writes a row without touching its values one by one.

`%b` refuses None. Where NULLs are, columns that hold any have their fields made value by value, the others not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exportapp.engine.specs import Row, Values

TEMPLATES_KEPT = 1000
_SLICE = 1 << 20
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

    `nulls` is what stands for NULL in each; where that is None, NULL raises TypeError. `empty` is a row of values with
    nothing in them but what a run has between its own, and `special` are the bytes that texts may not hold as they are.
    """

    def __init__(
        self,
        fields: Sequence[bytes],
        nulls: Values,
        join: Callable[[Sequence[bytes]], bytes],
        empty: Row,
        special: bytes,
    ) -> None:
        self._fields = fields
        self._nulls = nulls
        self._join = join
        self._full = join(fields)
        self._ordinary = bytes(set(range(256)) - set(special))
        self._skeleton = (self._full % empty).translate(None, self._ordinary)
        self._templates: dict[tuple[bool, ...], bytes] = {}

    def rows(self, rows: Sequence[Row]) -> bytes | None:
        """The rows as they are; None when one of them holds NULL, or a text in them a special byte."""
        try:
            block = b"".join(map(self._full.__mod__, rows))
        except TypeError:
            return None
        return block if self._holds(block, self._skeleton * len(rows)) else None

    def _holds(self, block: bytes, special: bytes) -> bool:
        """Whether these are the special bytes of a block: one look at each byte finds whatever is out of place."""
        found = b""
        for start in range(0, len(block), _SLICE):
            found += block[start : start + _SLICE].translate(None, self._ordinary)
            if len(found) > len(special):
                return False
        return found == special

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
