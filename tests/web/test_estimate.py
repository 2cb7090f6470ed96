"""The live part of the form: the histogram with its caching, and the card with estimate and first rows, which writes nothing."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from exportapp import figures, previews
from exportapp.engine.errors import ExportError
from exportapp.engine.specs import Column, FileOptions, Query, Recipe
from exportapp.models import DatasetFigures, PersonAttribute, Process
from exportapp.previews import Cell, Preview, first_rows, parsed
from exportapp.web.figures import _span
from exportapp.web.words import short
from tests.engine.servers import database_of
from tests.pages import Element, read
from tests.scenes import browser, everything, in_state, send
from tests.services import MariaDB

pytestmark = pytest.mark.usefixtures("shop")

ADDRESS = "/exports/new/orders/estimate"
HISTOGRAM = "/exports/new/orders/histogram.json"
FORM = {"token": "t", "start": "2026-01-01", "end": "2026-02-01", "zone": "UTC", "columns": ["id", "status"], "format": "csv",
        "compression": "none"}  # fmt: skip


def pairs(**changes: Any) -> list[tuple[str, str]]:
    fields = {**FORM, **{name.replace("__", "-"): value for name, value in changes.items()}}
    return [(name, one) for name, value in fields.items() for one in (value if isinstance(value, list) else [value])]


def card(client: Client, dataset: str = "orders", **changes: Any) -> Element:
    response = send(client, f"/exports/new/{dataset}/estimate", pairs(**changes))
    assert response.status_code == 200
    return read(response.content)


def facts(page: Element) -> list[str]:
    return [" ".join(one.text.split()) for one in page.all("div") if one.attributes.get("class") == "fact"]


def table(page: Element) -> list[list[str]]:
    return [[cell.text.strip() for cell in row.all("td")] for row in page.one("tbody").all("tr")]


@pytest.fixture
def counted(shop: Path) -> None:
    while figures.refresh_one():
        pass


# --- the histogram ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("counted")
def test_histogram_has_the_rows_of_each_day(alices: Client) -> None:
    found = alices.get(HISTOGRAM).json()
    assert found.pop("computed_at")
    assert found == {
        "unit": "day", "days": [[f"2026-01-{day:02}", 1] for day in range(1, 26)], "rows": 25, "rows_exact": True,
        "oldest": "2026-01-01T10:00:00Z", "newest": "2026-01-25T10:00:00Z",
    }  # fmt: skip


def test_histogram_is_empty_before_anything_was_counted(alices: Client) -> None:
    response = alices.get(HISTOGRAM)
    assert response.json() == {
        "unit": "day", "days": [], "rows": None, "rows_exact": None, "oldest": None, "newest": None, "computed_at": None,
    }  # fmt: skip
    assert "max-age=0" in response["Cache-Control"]


@pytest.mark.usefixtures("counted")
def test_of_very_many_days_months_are_told(alices: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    DatasetFigures.objects.filter(dataset="orders").update(
        days=[["2026-01-30", 2], ["2026-01-31", 3], ["2026-03-01", 4], ["2027-03-01", 5]]
    )
    monkeypatch.setattr("exportapp.web.figures.MOST_DAYS", 3)
    found = alices.get(HISTOGRAM).json()
    assert (found["unit"], found["days"]) == ("month", [["2026-01-01", 5], ["2026-03-01", 4], ["2027-03-01", 5]])


@pytest.mark.usefixtures("counted")
def test_a_browser_that_has_the_histogram_is_not_sent_it_again(alices: Client, bob: User) -> None:
    first = alices.get(HISTOGRAM)
    assert "private" in first["Cache-Control"]
    assert "Cookie" in first["Vary"]
    again = alices.get(HISTOGRAM, headers={"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    since = alices.get(HISTOGRAM, headers={"If-Modified-Since": first["Last-Modified"]})
    assert since.status_code == 304
    others = browser(bob).get(HISTOGRAM, headers={"If-None-Match": first["ETag"]})
    assert others.status_code == 200, "what one person has is not another one's"
    row = DatasetFigures.objects.get(dataset="orders")
    DatasetFigures.objects.filter(pk=row.pk).update(computed_at=row.computed_at + timedelta(hours=6))  # type: ignore[operator]
    assert alices.get(HISTOGRAM, headers={"If-None-Match": first["ETag"]}).status_code == 200


@pytest.mark.usefixtures("counted")
def test_whoever_may_not_export_learns_nothing(charlie: User, alices: Client, alice: User) -> None:
    etag = alices.get(HISTOGRAM)["ETag"]
    stranger = browser(charlie)
    assert stranger.get(HISTOGRAM, headers={"If-None-Match": etag}).status_code == 404
    assert send(stranger, ADDRESS, pairs()).status_code == 404
    for address in ("/exports/new/nothing/histogram.json", "/exports/new/regional/histogram.json"):
        assert stranger.get(address).status_code == 404
    assert Client().get(HISTOGRAM).status_code == 302
    assert send(Client(), ADDRESS, pairs()).status_code == 302
    alice.groups.clear()
    assert alices.get(HISTOGRAM, headers={"If-None-Match": etag}).status_code == 404


@pytest.mark.usefixtures("counted")
def test_whoever_has_some_rows_alone_is_not_told_of_the_others(charlie: User) -> None:
    PersonAttribute.objects.create(person=charlie, name="country", value="FR")
    assert browser(charlie).get("/exports/new/regional/histogram.json").json()["rows"] is None
    page = card(browser(charlie), "regional", columns=["country"], start="", end="")
    assert table(page) == [["FR"]] * 5


# --- the card ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("counted")
def test_card_tells_rows_size_time_and_start(alices: Client, alice: User) -> None:
    for kind, said in (("dispatcher", {"broker": "reachable"}), ("worker", {})):
        Process.objects.create(name=kind, kind=kind, started_at=figures.now(), seen_at=figures.now(), facts=said)
    page = card(alices)
    rows, size, seconds, starts = facts(page)
    assert rows == "25 rows"
    assert "bytes in the file" in size
    assert seconds == "1–2 s to make"
    assert starts == "now nobody is before you"
    assert "Size and time are guesses until the first export of this kind." in page.text


def test_card_says_when_nothing_would_start(alices: Client) -> None:
    assert "later the export desk's dispatcher does not answer" in facts(card(alices))[3]


def test_without_figures_the_first_rows_are_there_all_the_same(alices: Client) -> None:
    page = card(alices)
    assert facts(page)[:2] == ["? rows", "? in the file"]
    assert "Nobody has counted these rows yet." in page.text
    assert table(page)[:2] == [["2", "paid"], ["4", "paid"]]
    assert len(table(page)) == 20
    assert [cell.text for cell in page.one("thead").all("th")] == ["Id", "Status"]


@pytest.mark.usefixtures("counted")
def test_nothing_is_written_whatever_is_in_the_form(alices: Client, alice: User) -> None:
    in_state(alice, "ready")
    before = everything()
    for changes in ({}, {"format": "xlsx"}, {"start": "soon"}, {"columns": []}, {"name": "x" * 300}, {"token": ""}):
        card(alices, **changes)  # type: ignore[arg-type]
    assert everything() == before
    assert alices.get(ADDRESS).status_code == 405


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"end": "soon"}, "25"),
        ({"start": "2026-01-21", "end": "2026-13-01"}, "5"),
        ({"end": "2027-01-01"}, "25"),
        ({"end": ""}, "25"),
        ({"end": "9999-12-31 23:30", "zone": "America/New_York"}, "≈"),
        ({"start": "0001-01-01 00:30", "zone": "Asia/Tokyo"}, "25"),
        ({"zone": "Mars/Base"}, "25"),
        ({"format": "pdf"}, "25"),
        ({"compression": "rar"}, "25"),
        ({"header": "none"}, "25"),
        ({"format": "xlsx", "compression": "gzip"}, "25"),
        ({"columns": ["id", "nothing", "id"]}, "25"),
        ({"filter__column": "id", "filter__op": "eq", "filter__low": "many"}, "25"),
        ({"filter__column": "nothing", "filter__op": "eq", "filter__low": "1"}, "25"),
        ({"start": "2026-02-01", "end": "2026-01-01"}, "0"),
    ],
)
def test_what_is_not_right_yet_is_left_out(alices: Client, changes: dict[str, Any], rows: str) -> None:
    page = card(alices, **changes)
    assert facts(page)[0].split()[0] == rows
    if changes != {"header": "none"}:
        assert "Something in the form is not right yet" in page.text
        assert not page.all("table")


def test_without_a_column_it_is_asked_for_one(alices: Client) -> None:
    assert "Tick a column" in card(alices, columns=[]).text
    assert "Tick a column" in card(alices, columns=["nothing"]).text


def test_what_stands_in_the_source_is_no_markup(alices: Client, shop: Path) -> None:
    import sqlite3

    with sqlite3.connect(shop) as connection:
        connection.execute(
            "UPDATE orders SET status = '<script>alert(1)</script>' || printf('%.*c', 400, 'x') WHERE id = 2"
        )
    connection.close()
    response = send(alices, ADDRESS, pairs())
    assert b"<script>" not in response.content
    [first, *_] = table(read(response.content))
    assert first[1].startswith("<script>alert(1)</script>xx") and first[1].endswith("…")
    assert len(first[1]) == 300


def test_rows_that_nobody_has_are_told(alices: Client) -> None:
    assert "No row meets this" in card(alices, filter__column="status", filter__op="eq", filter__low="lost").text


def test_a_source_that_is_away_leaves_the_estimate(alices: Client, shop: Path, counted: None) -> None:
    shop.unlink()
    page = card(alices)
    assert facts(page)[0] == "25 rows"
    assert "The table no longer has what this dataset names." in page.text


# --- the first rows ---------------------------------------------------------------------------------------------------


def written(url: str, form: str = "csv", names: str = "id", conditions: tuple[Any, ...] = (), **more: Any) -> Preview:
    columns = tuple(Column(name, "integer" if name == "id" else "text", label=name.title()) for name in names.split())
    query = Query("orders", False, columns, (Column("id", "integer"),), conditions)
    return first_rows(url, query, Recipe("orders", tuple(names.split()), form, **more), "test", lambda reader: None)


def lines(found: Preview) -> list[list[str]]:
    return [[cell.text for cell in row] for row in found.rows]


@pytest.fixture
def texts(mariadb: MariaDB) -> str:
    """A table of a real server with what is hard to show."""
    database = database_of(mariadb)
    database.sql("CREATE TABLE orders (id INT PRIMARY KEY, a VARCHAR(90), b TEXT, INDEX (a));"
                 "INSERT INTO orders SELECT seq, CONCAT('=', seq), 'x,\"y\"\\r\\nz' FROM seq_1_to_30;"
                 "UPDATE orders SET a = NULL, b = '' WHERE id = 2")  # fmt: skip
    return database.url


def test_rows_of_a_real_server_stand_there_as_in_the_file(texts: str) -> None:
    found = written(texts, names="id a b")
    assert found.header == ("Id", "A", "B")
    assert len(found.rows) == 20
    assert lines(found)[0] == ["1", "'=1", 'x,"y"\r\nz'], "what looks like a formula is made harmless, as in the file"
    assert found.rows[1] == (Cell("2"), Cell("", True), Cell(""))
    assert found.sample == (20, found.bytes)
    assert written(texts, names="id a", options=FileOptions(exact=True, delimiter=";", null="NULL", bom=True)).rows[1] == (
        Cell("2"), Cell("NULL", True),
    )  # fmt: skip
    assert written(texts, names="a").rows[1] == (Cell("\\N", True),)
    assert lines(written(texts, "tsv", "id a"))[2] == ["3", "'=3"]
    assert lines(written(texts, "jsonl", "id a"))[:2] == [['{"id":1,"a":"=1"}'], ['{"id":2,"a":null}']]
    for form in ("xlsx", "parquet"):
        assert lines(written(texts, form, "id a", compression="none"))[0] == ["1", "=1"]
    assert written(texts, "parquet", "id a").header == ("id", "a")


def test_what_was_shown_is_how_the_file_begins(texts: str) -> None:
    import csv

    from exportapp.engine.chunks import write_piece
    from exportapp.engine.readers import open_reader
    from exportapp.engine.sinks.memory import MemoryStore
    from exportapp.engine.specs import ChunkSpec, KeyRange

    columns = (Column("id", "integer", label="Id"), Column("a", label="A"), Column("b", label="B"))
    store = MemoryStore()
    with open_reader(texts) as reader:
        spec = ChunkSpec(Query("orders", False, columns, columns[:1]), KeyRange(), "csv", "none", "f", True, "", 60)
        write_piece(spec, reader, store)
    whole = list(csv.reader(io.StringIO(store.files["f"].decode(), newline="")))
    found = written(texts, names="id a b")
    assert [list(found.header), *lines(found)] == whole[:21]


def test_any_rows_are_shown_when_the_first_take_too_long(texts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []

    def in_order_too_slow(reader: Any, query: Query, *rest: Any) -> Preview:
        given.append(bool(query.key))
        if query.key:
            raise previews.TooSlow("The database takes too long.")
        return real(reader, query, *rest)

    real = previews._written
    monkeypatch.setattr(previews, "_written", in_order_too_slow)
    found = written(texts)
    assert (given, found.first, len(found.rows)) == ([True, False], False, 20)


def test_rows_that_are_too_long_are_not_fetched_without_end(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    database = database_of(mariadb)
    database.sql("CREATE TABLE orders (id INT PRIMARY KEY, a LONGTEXT)")
    database.sql("INSERT INTO orders SELECT seq, REPEAT('x', 900000) FROM seq_1_to_20")
    with pytest.raises(ExportError, match="too long to be shown"):
        written(database.url, names="id a")


def test_lines_of_a_file_are_read_back() -> None:
    assert parsed('"a";"b"\r\n1;\r\n"";"x""\r\n;"\r\n', ";", "") == [
        (Cell("a"), Cell("b")), (Cell("1"), Cell("", True)), (Cell(""), Cell('x"\r\n;')),
    ]  # fmt: skip
    assert parsed("1|2\r\n", "|", "\\N") == [(Cell("1"), Cell("2"))]


# --- one at a time ----------------------------------------------------------------------------------------------------


class Hanging:
    """First rows that do not come until their reader is killed."""

    def __init__(self) -> None:
        self.asked, self.killed = threading.Event(), threading.Event()

    def __call__(self, url: str, query: Any, recipe: Any, comment: str, reading: Callable[[Any], None]) -> Preview:
        reading(self)
        self.asked.set()
        assert self.killed.wait(10)
        raise ExportError("The database broke off the connection.")

    def kill(self) -> None:
        self.killed.set()


NOTHING: Any = None


def test_a_source_that_hangs_holds_the_request_for_two_seconds_and_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = Hanging()
    monkeypatch.setattr(previews, "first_rows", hanging)
    monkeypatch.setattr(previews, "SECONDS", 0.2)
    began = monotonic()
    assert previews.preview(1, "", NOTHING, NOTHING).problem == previews.SILENT
    assert monotonic() - began < 1
    assert hanging.killed.wait(5)


def test_a_newer_preview_of_a_person_ends_the_older_one_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, other = Hanging(), Hanging()
    found: dict[str, Preview] = {}

    def ask(name: str, person: int) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.update({name: previews.preview(person, "", NOTHING, NOTHING)}))
        thread.start()
        return thread

    monkeypatch.setattr(previews, "first_rows", other)
    threads = [ask("bob", 2)]
    assert other.asked.wait(5)
    monkeypatch.setattr(previews, "first_rows", hanging)
    threads.append(ask("old", 1))
    assert hanging.asked.wait(5)
    monkeypatch.setattr(previews, "first_rows", lambda *_: Preview(("new",)))
    assert previews.preview(1, "", NOTHING, NOTHING) == Preview(("new",))
    assert hanging.killed.wait(5)
    assert not other.killed.is_set()
    other.killed.set()
    for thread in threads:
        thread.join(5)
    assert found["old"].problem == previews.CHANGED
    assert found["bob"].problem == "The database broke off the connection."
    assert previews._runs == {}


def test_so_many_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_room", threading.BoundedSemaphore(1))
    previews._room.acquire()
    assert previews.preview(1, "", NOTHING, NOTHING).problem == previews.BUSY
    previews._room.release()
    monkeypatch.setattr(previews, "first_rows", lambda *_: Preview(("new",)))
    for _ in range(3):
        assert previews.preview(1, "", NOTHING, NOTHING).header == ("new",)


def test_a_query_that_takes_too_long_is_ended_on_the_server(mariadb: MariaDB) -> None:
    database = database_of(mariadb)
    columns = (Column("id", "integer"),)
    slow = Query("SELECT seq AS id FROM seq_1_to_1000 WHERE SLEEP(0.1) = 0 ORDER BY seq DESC", True, columns, columns)
    began = monotonic()
    assert previews.preview(1, database.url, slow, Recipe("orders", ("id",))).problem == previews.SILENT
    assert monotonic() - began < 2.6
    assert database.running("exportapp preview") == []


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (None, "?"), ((7, 7), "7"), ((0, 0), "0"), ((9999, 9999), "9,999"), ((1_200_000, 1_300_000), "≈ 1.25 M"),
        ((1000, 3000), "1,000 – 3,000"), ((10, 4650), "up to 4,650"), ((0, 12), "up to 12"), ((12_345, 12_345), "12 k"),
        ((1_239_000_000, 1_239_000_000), "1.24 bn"), ((999_950, 999_950), "1,000 k"),
    ],
)  # fmt: skip
def test_a_range_in_words(span: Any, words: str) -> None:
    assert _span(span, short) == words


def test_the_answer_is_small(alices: Client, counted: None) -> None:
    response: HttpResponse = send(alices, ADDRESS, pairs())
    assert len(response.content) < 8000
    assert "no-store" in response["Cache-Control"]
    assert json.loads(alices.get(HISTOGRAM).content)
