"""What an encoder is: it keeps one file's state and turns batches of raw rows into bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from exportapp.engine.specs import Column, Row


class Encoder(Protocol):
    """Built with the columns that the reader really delivers; used for one piece."""

    def start(self) -> bytes:
        """What a file opens with; asked for only in the first piece of a file."""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """The rows, complete. Raises ExportError for a value that the format cannot hold."""

    def finish(self) -> bytes:
        """What a file ends with; '' for every format whose pieces join."""


class EncoderFactory(Protocol):
    def __call__(self, columns: Sequence[Column]) -> Encoder: ...


@dataclass(frozen=True)
class Format:
    """All that is known of a format: form, file names and content types follow from this entry."""

    label: str
    sentence: str
    extension: str
    content_type: str
    encoder: EncoderFactory
    joins: bool = True  # pieces make a file by concatenation
