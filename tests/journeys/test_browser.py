"""The way of a person with a real browser, Debian's Chromium: sign in, fill the form, watch, download, compare."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.journeys.quickstart import Quickstart
from tests.services.base import find_program

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
PHONE = {"width": 390, "height": 844}

CSV_BY_SQL = """
SELECT id || ',"' || status || '",' || printf('%.2f', total) || ',' || ifnull('"' || replace(comment, '"', '""') || '"', '')
FROM orders WHERE placed_at >= '2026-02-28 23:00:00' AND placed_at < '2026-06-30 22:00:00' AND status = 'refunded' ORDER BY id
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium", "chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, desk: Quickstart) -> Iterator[Callable[..., Page]]:
    """Opens a new browser at the desk; at the end nothing may have gone wrong in any of them."""
    complaints: list[str] = []
    contexts = []

    def open_page(**options: object) -> Page:
        context = chromium.new_context(base_url=desk.address, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    # Chromium calls it an error when a form comes back with its mistakes told.
    assert [one for one in complaints if "status of 422" not in one] == []


def sign_in(page: Page, desk: Quickstart, name: str = "alice") -> None:
    page.goto("/")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(desk.passwords[name])
    page.get_by_role("button", name="Sign in").click()


@contextmanager
def worker_paused(desk: Quickstart) -> Iterator[None]:
    os.kill(desk.worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(desk.worker, signal.SIGCONT)


def fill_in(page: Page, name: str) -> None:
    page.get_by_role("link", name="New export").first.click()
    page.get_by_role("link", name="Orders", exact=True).click()
    page.get_by_label("From").fill("2026-03-01")
    page.get_by_label("Until, not included").fill("2026-07-01 00:00")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    for box in page.locator("input[name=columns]").all():
        box.set_checked(box.get_attribute("value") in ("id", "status", "total", "comment"))
    page.get_by_label("Column", exact=True).select_option("status")
    page.get_by_label("Comparison").select_option("eq")
    page.get_by_label("Value", exact=False).first.fill("refunded")
    page.get_by_label("Name of the file").fill(name)


def fetched(page: Page, name: str, folder: Path) -> bytes:
    with page.expect_download() as begun:
        page.get_by_role("link", name=f"Download {name}").click()
    assert begun.value.suggested_filename == f"{name.replace(' ', '-')}.csv"
    begun.value.save_as(folder / "file.csv")
    return (folder / "file.csv").read_bytes()


def expected(desk: Quickstart) -> bytes:
    rows = desk.rows(CSV_BY_SQL)
    assert len(rows) > 10
    return "".join(row + "\r\n" for row in ['"Order number","Status","Total","Comment"', *rows]).encode()


def test_person_watches_the_export_move_without_a_reload_and_gets_the_file(
    visit: Callable[..., Page], desk: Quickstart, tmp_path: Path
) -> None:
    page = visit()
    sign_in(page, desk)
    fill_in(page, "Watched in Chromium")
    with worker_paused(desk):
        page.get_by_role("button", name="Start export").last.click()
        row = page.get_by_role("row", name="Watched in Chromium")
        expect(row).to_contain_text("Waits for a free worker")
        page.evaluate("window.neverReloaded = true")
        with page.expect_request(lambda request: "hx-request" in request.headers):
            pass
    expect(row).to_contain_text("Ready", timeout=30_000)
    assert page.evaluate("window.neverReloaded")
    expect(page.locator("#exports")).not_to_have_attribute("hx-get", "/exports/")  # nothing moves, nothing polls
    assert fetched(page, "Watched in Chromium", tmp_path) == expected(desk)

    page.get_by_role("link", name="Watched in Chromium", exact=True).click()
    expect(page.get_by_text("from 2026-03-01 until 2026-07-01 00:00 (not included), Europe/Berlin")).to_be_visible()
    expect(page.get_by_text("Downloaded by alice")).to_be_visible()


def test_everything_works_without_javascript(visit: Callable[..., Page], desk: Quickstart, tmp_path: Path) -> None:
    page = visit(java_script_enabled=False)
    sign_in(page, desk)
    fill_in(page, "Without scripts")
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_role("button", name="Start export").last.click()
    row = page.get_by_role("row", name="Without scripts")
    for _ in range(100):
        if "Ready" in row.inner_text():
            break
        page.wait_for_timeout(200)
        page.reload()
    assert fetched(page, "Without scripts", tmp_path) == expected(desk)


def test_mistake_is_told_where_the_eye_and_the_keyboard_are(visit: Callable[..., Page], desk: Quickstart) -> None:
    page = visit()
    sign_in(page, desk)
    fill_in(page, "With a mistake")
    page.get_by_label("From").fill("2026-02-30")
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        page.keyboard.press("Enter")
    assert answer.value.status == 422
    expect(page.get_by_role("alert")).to_be_focused()
    page.get_by_role("alert").get_by_role("link").click()
    expect(page.get_by_label("From")).to_be_focused()
    expect(page.get_by_label("From")).to_have_accessible_description("2026-02-30 does not exist in the calendar.")
    expect(page.get_by_label("Name of the file")).to_have_value("With a mistake")


def test_condition_offers_the_values_that_a_column_may_have(visit: Callable[..., Page], desk: Quickstart) -> None:
    page = visit()
    sign_in(page, desk)
    page.goto("/exports/new/orders/")
    value = page.locator("input[name=filter-low]")
    expect(value).to_be_hidden()
    page.get_by_label("Column", exact=True).select_option("status")
    expect(value).to_be_visible()
    offered = page.evaluate(
        "[...document.querySelector('input[name=filter-low]').list.options].map((one) => one.value)"
    )
    assert offered == ["new", "paid", "shipped", "delivered", "cancelled", "refunded"]
    page.get_by_label("Column", exact=True).select_option("placed_at")
    expect(value).to_have_attribute("placeholder", "2026-01-31 14:30")
    assert page.evaluate("document.querySelector('input[name=filter-low]').list") is None


def test_waiting_export_is_cancelled_by_a_click(visit: Callable[..., Page], desk: Quickstart) -> None:
    page = visit()
    sign_in(page, desk)
    fill_in(page, "Not wanted any more")
    with worker_paused(desk):
        page.get_by_role("button", name="Start export").last.click()
        page.get_by_role("button", name="Cancel Not wanted any more").click()
        page.get_by_role("button", name="Stop it").click()
        expect(page.get_by_role("row", name="Not wanted any more")).to_contain_text("Cancelled")


def test_no_page_is_wider_than_a_phone(visit: Callable[..., Page], desk: Quickstart) -> None:
    page = visit(viewport=PHONE, device_scale_factor=2)
    page.goto("/login/")
    pages = ["/login/", "/exports/", "/exports/new/", "/exports/new/orders/", "/exports/new/products/"]
    sign_in(page, desk)
    page.goto("/exports/")
    pages.append(page.locator("a.name").first.get_attribute("href") or "")
    for address in pages:
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], address
