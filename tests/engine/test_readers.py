"""Opening a source by its address: the right reader, closed at the end, and a sentence where there is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from exportapp.engine import readers
from exportapp.engine.errors import ExportError
from exportapp.engine.readers import open_reader
from exportapp.engine.readers.sqlite import SQLiteReader
from exportapp.engine.specs import KeyRange
from tests.engine.scenes import query, rows_of, sqlite_source


def test_a_reader_is_closed_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    url = sqlite_source(tmp_path, "CREATE TABLE t (a)")
    with pytest.raises(ZeroDivisionError), open_reader(url) as reader:
        assert isinstance(reader, SQLiteReader)
        raise ZeroDivisionError
    with pytest.raises(ExportError, match="Cannot operate on a closed database"):
        rows_of(reader, query("t", "a"))


@pytest.mark.parametrize("url", ["", "oracle://ann:secret@host/db", "sqlite3:///x", "/srv/shop.sqlite3"])
def test_an_address_that_no_reader_knows_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ExportError, match="address is not understood") as caught, open_reader(url):
        pass
    assert caught.value.permanent
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(readers.READERS, "mysql", "exportapp.engine.readers.no_such_driver:Reader")
    with pytest.raises(ExportError, match="driver is not installed") as caught, open_reader("mysql://host/db"):
        pass
    assert caught.value.permanent


def test_an_error_of_the_block_is_not_taken_for_a_missing_driver(tmp_path: Path) -> None:
    with pytest.raises(ImportError), open_reader(sqlite_source(tmp_path, "")):
        raise ImportError


def test_nothing_is_left_locked(tmp_path: Path) -> None:
    url = sqlite_source(tmp_path, "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    with open_reader(url) as reader:
        next(iter(reader.stream(query("t", "a"), KeyRange(), "")))
    connection = sqlite3.connect(tmp_path / "source.sqlite3", timeout=0)
    connection.execute("DROP TABLE t")
    connection.close()
