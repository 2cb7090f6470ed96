"""What a newcomer meets after `make run`: real processes on SQLite and local files, driven over HTTP."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.journeys.quickstart import ORDERS, Quickstart
from tests.journeys.visitor import Visitor
from tests.services import wait_until

COLUMNS = ["id", "placed_at", "status", "total", "comment", "is_gift"]

# SQLite's own printf and json_quote write the rows, so that nothing of ours is compared with itself.
LINES_BY_SQL = """
SELECT '{"id":' || id || ',"placed_at":' || json_quote(placed_at || '+00:00') || ',"status":' || json_quote(status)
    || ',"total":' || printf('%.2f', total)
    || ',"comment":' || ifnull(json_quote(comment), 'null') || ',"is_gift":' || iif(is_gift, 'true', 'false') || '}'
FROM orders WHERE placed_at >= '2025-01-01 00:00:00' AND placed_at < '2026-01-01 00:00:00' AND total >= 100
ORDER BY id
"""
CSV_BY_SQL = """
SELECT id || ',"' || name || '"' FROM (SELECT id, replace(name, '"', '""') AS name FROM products ORDER BY id)
"""


def as_user(desk: Quickstart, name: str) -> Visitor:
    visitor = Visitor(desk.address)
    visitor.sign_in(name, desk.passwords[name])
    return visitor


def signs(desk: Quickstart) -> list[str]:
    with closing(sqlite3.connect(desk.var / "exportapp.sqlite3")) as app:
        return [name for (name,) in app.execute("SELECT name FROM exportapp_process")]


def test_newcomer_is_told_all_that_is_needed_and_a_first_file_is_there(desk: Quickstart) -> None:
    assert sorted(desk.passwords) == ["alice", "bob", "operator"]
    assert len(set(desk.passwords.values())) == 3
    assert desk.file.read_bytes().startswith(b'"Order number","Placed at"')
    assert desk.rows("SELECT COUNT(*) FROM orders") == [ORDERS]
    assert f"{ORDERS:,} of {ORDERS:,} rows" in desk.told
    assert oct((desk.var / "demo-users.txt").stat().st_mode)[-3:] == "600"


def test_start_leaves_no_error_in_the_logs(desk: Quickstart) -> None:
    for log in (desk.var / "log").iterdir():
        said = log.read_text()
        assert "Traceback" not in said and " ERROR " not in said, log


def test_first_export_is_among_alice_s(desk: Quickstart) -> None:
    exports = as_user(desk, "alice").get("/exports/").page.one("main")
    assert "All orders, a first export" in exports.text


@pytest.mark.parametrize(
    ("dataset", "typed", "statement", "head", "end"),
    [
        (
            "orders",
            {"start": "2025-01-01", "end": "2026-01-01", "zone": "UTC", "columns": COLUMNS, "format": "jsonl",
             "filter_column": "total", "filter_op": "between", "filter_low": "100", "filter_high": ""},
            LINES_BY_SQL, "", "\n",
        ),
        ("products", {"columns": ["id", "name"]}, CSV_BY_SQL, '"Product number","Name"\r\n', "\r\n"),
    ],
    ids=["json lines", "csv"],
)  # fmt: skip
def test_file_asked_for_in_the_form_is_what_sqlite_says(
    desk: Quickstart, dataset: str, typed: dict[str, str | list[str] | None], statement: str, head: str, end: str
) -> None:
    bob = as_user(desk, "bob")
    path = bob.ask(dataset, **typed)
    wait_until(lambda: bob.state(path) == "Ready", 60, "the file")
    expected = head + "".join(row + end for row in desk.rows(statement))
    assert len(expected) > 1000
    assert bob.download(path).body.decode() == expected

    mail = wait_until(
        lambda: [file for file in (desk.var / "mail").glob("*") if path in file.read_text()], 30, "a mail"
    )
    assert "bob@example.com" in mail[0].read_text()


def test_operator_sees_processes_alive_and_everybody_s_exports(desk: Quickstart) -> None:
    operator = as_user(desk, "operator")
    assert "All orders, a first export" in operator.get("/admin/exportapp/export/").page.text

    def alive() -> set[str]:
        listed = operator.get("/admin/exportapp/process/").page.one("table", id="result_list").one("tbody").all("tr")
        return {row.one(cls="field-kind").text for row in listed if row.one("img").attributes["alt"] == "True"}

    wait_until(lambda: alive() == {"dispatcher", "worker"}, 30, "signs of life")


def test_health_is_told_without_signing_in(desk: Quickstart) -> None:
    anybody = Visitor(desk.address)
    assert anybody.get("/healthz").body == b"ok\n"
    assert json.loads(anybody.get("/readyz").body) == {"database": "ok"}
    assert anybody.get("/exports/").url.endswith("/login/?next=/exports/")


def test_taken_port_is_told_with_what_to_do(desk: Quickstart, tmp_path: Path) -> None:
    with Quickstart(tmp_path) as second:
        second.port = desk.port
        second.begin()
        wait_until(lambda: second.ended, 30, "the refusal")
        assert (
            second.told
            == f"CommandError: Port {desk.port} is taken. Choose another one: PORT={desk.port + 1} make run\n"
        )


@pytest.mark.parametrize("port", ["abc", "0", "99999"])
def test_port_that_is_none_is_told(tmp_path: Path, port: str) -> None:
    with Quickstart(tmp_path) as desk:
        desk.port = port  # type: ignore[assignment]
        desk.begin()
        wait_until(lambda: desk.ended, 30, "the refusal")
        assert desk.told == f"CommandError: '{port}' is no port. Choose a number up to 65535: PORT=8000 make run\n"


def test_signal_ends_every_child_and_the_next_run_goes_on_with_the_data(tmp_path: Path) -> None:
    with Quickstart(tmp_path) as desk:
        desk.start(orders=500)
        first, file = desk.passwords, desk.file
        assert len(desk.processes.survivors()) >= 4
        assert desk.end(signal.SIGINT) == 0
        assert desk.processes.survivors() == []
        assert "Everything has ended." in desk.told
        assert signs(desk) == []  # what ended in order is not shown as dead

        desk.start(orders=500)
        assert (desk.passwords, desk.file) == (first, file)
        assert "Making" not in desk.told
        assert desk.end(signal.SIGTERM) == 0
        assert desk.processes.survivors() == []


def test_children_end_even_when_their_parent_is_killed(tmp_path: Path) -> None:
    with Quickstart(tmp_path) as desk:
        desk.start(orders=500)
        assert desk.end(signal.SIGKILL) == -signal.SIGKILL
        wait_until(lambda: not desk.processes.survivors(), 30, "the end of the children")


def test_child_that_ends_takes_the_desk_down_with_a_word_about_it(tmp_path: Path) -> None:
    with Quickstart(tmp_path) as desk:
        desk.start(orders=500)
        os.kill(desk.worker, signal.SIGKILL)
        wait_until(lambda: desk.ended, 30, "the end")
        assert "work ended unexpectedly; " in desk.told
        assert desk.processes.survivors() == []
