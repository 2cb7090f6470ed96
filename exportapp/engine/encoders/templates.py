"""Rows through bytes templates: one `template % row` writes a row without touching its values one by one.

`%b` refuses None, so rows with NULLs take a template made for just that pattern of NULLs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exportapp.engine.specs import Row

PATTERNS_KEPT = 1000


class RowTemplates:
    """Templates for rows of `fields`; `join` makes a row of its fields, `null` is what stands for NULL."""

    def __init__(
        self, fields: Sequence[bytes], null: Sequence[bytes], join: Callable[[Sequence[bytes]], bytes]
    ) -> None:
        self._fields = fields
        self._null = null
        self._join = join
        self._full = join(fields)
        self._patterns: dict[tuple[bool, ...], bytes] = {}

    def write(self, rows: Sequence[Row]) -> bytes:
        """All rows; fast when none holds NULL."""
        try:
            return b"".join(map(self._full.__mod__, rows))
        except TypeError:
            return b"".join(map(self.row, rows))

    def row(self, row: Row) -> bytes:
        if None not in row:
            return self._full % row
        pattern = tuple(value is None for value in row)
        template = self._patterns.get(pattern)
        if template is None:
            if len(self._patterns) >= PATTERNS_KEPT:
                self._patterns.clear()
            pairs = zip(self._fields, self._null, pattern, strict=True)
            template = self._patterns[pattern] = self._join([null if gone else field for field, null, gone in pairs])
        return template % tuple(value for value in row if value is not None)
