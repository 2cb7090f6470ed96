"""What an encoder is: it keeps one file's state and turns batches of raw rows into bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from exportapp.engine.runs import Run
from exportapp.engine.specs import Column, FileOptions, Row


class Encoder(Protocol):
    """Built with the columns that the reader really delivers; used for one piece."""

    @property
    def runs(self) -> Sequence[Run]:
        """Neighbouring columns that it wants as one value each, because it would write them just so."""

    def start(self) -> bytes:
        """What a file opens with; asked for only in the first piece of a file."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The rows, complete. Raises ExportError for a value that the format cannot hold."""

    def finish(self) -> bytes:
        """What a file ends with; '' for every format whose pieces join."""


class EncoderFactory(Protocol):
    def __call__(self, columns: Sequence[Column], options: FileOptions = ..., /) -> Encoder: ...


@dataclass(frozen=True)
class Typical:
    """What a format mostly makes of the same values, for estimates: `share` of CSV's bytes, `fixed` bytes of any file,
    `speed` in MB of CSV a second, and whether each row `names` its columns."""

    share: float = 1.0
    fixed: int = 0
    speed: float = 25.0
    names: bool = False


@dataclass(frozen=True)
class Format:
    """All that is known of a format: form, file names, content types and documentation follow from this entry.

    `options` names the fields of FileOptions that it heeds, `compressions` what may be chosen around it. A format that
    does not join is written as one chunk, from its first row to its last.
    """

    label: str
    sentence: str
    extension: str
    content_type: str
    encoder: EncoderFactory
    joins: bool = True  # pieces make a file by concatenation
    options: frozenset[str] = frozenset()
    compressions: tuple[str, ...] = ("none", "gzip", "zstd")
    max_columns: int | None = None
    typical: Typical = Typical()
    limits: str = ""  # a sentence about what the format cannot hold, for the documentation
    told: Callable[[FileOptions, int], str] = lambda options, width: ""  # how values are written, for the receipt
