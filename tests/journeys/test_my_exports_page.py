"""The list of exports and the page of one in a real browser: they move by themselves and ask no more than they must, ask
back before anything is lost, and work by keyboard and without scripts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.journeys.gallery import WATCH
from tests.journeys.staged import Staged

HIDE = """
Object.defineProperty(document, "hidden", { get: () => Boolean(window.hiddenNow), configurable: true });
window.hide = (hidden) => { window.hiddenNow = hidden; document.dispatchEvent(new Event("visibilitychange")); };
"""
NOTIFY = """
window.told = [];
window.Notification = class {
  static permission = "default";
  static async requestPermission() { return (this.permission = "granted"); }
  constructor(title) { window.told.push(title); }
};
"""
QUICK = """
window.waits = [];
const later = window.setTimeout;
window.setTimeout = (act, wait, ...more) => {
  if (wait >= 2000 && wait !== 2001) window.waits.push(wait);
  return later(act, wait >= 2000 ? Math.max(wait / 10, 200) : wait, ...more);
};
"""  # ten times as fast

Open = Callable[..., Page]


@pytest.fixture
def open_as(browser: Browser, staged: Staged) -> Iterator[Open]:
    """Opens a page in a new browser of a person's; nothing may have gone wrong in any of them."""
    said: list[str] = []
    contexts = []

    def open_page(address: str, person: str = "alice", scripts: str = "", **options: Any) -> Page:
        context = browser.new_context(base_url=staged.address, **options)
        contexts.append(context)
        context.add_cookies([{"name": "sessionid", "value": staged.sessions[person], "url": staged.address}])
        context.add_init_script(WATCH + HIDE + scripts)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(address.format(**staged.words))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in said if "503" not in one] == []


@pytest.fixture
def change(staged: Staged) -> Callable[..., None]:
    """Writes into the desk's database what a worker would."""

    def write(statement: str, *values: object) -> None:
        with closing(sqlite3.connect(staged.database, timeout=30)) as database, database:
            database.execute(statement, values)

    return write


def key(staged: Staged, word: str) -> str:
    return UUID(staged.words[word]).hex


def asked_by(page: Page) -> list[Request]:
    """The requests that the page makes by itself."""
    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if "hx-request" in request.headers else None)
    return found


def until(page: Page, condition: str) -> None:
    """Waits for what the page's policy does not let Playwright wait for: that evaluates texts."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(condition)


READ = "UPDATE exportapp_step SET rows_done = ? WHERE export_id = ? AND kind = 'chunk' AND state = 'running'"


def test_page_moves_by_itself_says_the_quarters_and_has_it_in_its_title(
    open_as: Open, staged: Staged, change: Callable[..., None]
) -> None:
    page = open_as("/exports/{running}/", scripts=QUICK)
    try:
        expect(page).to_have_title("61 % · Orders, January to October · exportapp")
        page.evaluate("window.neverReloaded = true")
        change(READ, 320_000, key(staged, "running"))
        expect(page).to_have_title("75 % · Orders, January to October · exportapp")
        expect(page.locator("progress")).to_have_js_property("value", 75)
        expect(page.get_by_text("940,000 of about 1.24 M rows")).to_be_visible()
        said = page.locator("#said")
        expect(said).to_have_text("Orders, January to October: running, three quarters are read")
        expect(said).to_have_attribute("role", "status")
        assert page.evaluate("window.neverReloaded")
    finally:
        change(READ, 148_400, key(staged, "running"))


def test_who_waits_for_long_asks_less_and_gets_empty_answers(open_as: Open, staged: Staged) -> None:
    page = open_as("/exports/{queued}/", scripts=QUICK)
    statuses: list[int] = []
    page.on("response", lambda one: statuses.append(one.status) if "hx-request" in one.request.headers else None)
    until(page, "window.waits.length >= 9")
    waits = page.evaluate("window.waits")
    assert waits[:4] == [2000, 3000, 4500, 6750] or 200 in statuses
    assert max(waits) == 15_000
    assert statuses.count(204) >= len(statuses) - 1, "a minute may have ended in between"


def test_list_asks_nothing_when_all_is_over_and_in_tabs_that_nobody_sees(open_as: Open) -> None:
    over = open_as("/exports/?state=ready", scripts=QUICK)
    asked = asked_by(over)
    over.wait_for_timeout(1500)
    assert asked == []

    hidden = open_as("/exports/", scripts=QUICK)
    hidden.evaluate("hide(true)")
    hidden.wait_for_timeout(300)
    asked = asked_by(hidden)
    hidden.wait_for_timeout(1500)
    assert asked == []
    with hidden.expect_request(lambda request: "hx-request" in request.headers, timeout=1500):
        hidden.evaluate("hide(false)")


@pytest.mark.parametrize(
    ("address", "title", "later"),
    [
        ("/exports/", "Orders of last week: failed", "2 under way · My exports · exportapp"),
        (
            "/exports/{counting}/",
            "Failed · Orders of last week · exportapp",
            "Failed · Orders of last week · exportapp",
        ),
    ],
)
def test_who_wants_to_be_told_is_told_in_a_tab_behind_others(
    open_as: Open, staged: Staged, change: Callable[..., None], address: str, title: str, later: str
) -> None:
    page = open_as(address, scripts=QUICK + NOTIFY)
    button = page.locator("#tell")
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    page.evaluate("hide(true)")
    pk = key(staged, "counting")
    try:
        change(
            "UPDATE exportapp_export SET state = 'failed', error = 'Gone.', finished_at = started_at WHERE id = ?", pk
        )
        until(page, "window.told.length > 0")
        assert page.evaluate("window.told") == ["Orders of last week: failed"]
        expect(page).to_have_title(title)
        page.evaluate("hide(false)")
        expect(page).to_have_title(later)
    finally:
        change("UPDATE exportapp_export SET state = 'running', error = '', finished_at = NULL WHERE id = ?", pk)


def test_desk_that_does_not_answer_is_told(open_as: Open) -> None:
    page = open_as("/exports/", scripts=QUICK)
    expect(page.locator("#stale")).to_be_hidden()
    page.route("**/exports/", lambda route: route.fulfill(status=503))
    expect(page.locator("#stale")).to_contain_text("does not answer")
    page.unroute("**/exports/")
    expect(page.locator("#stale")).to_be_hidden()


@pytest.mark.parametrize("scripts", [True, False])
def test_nothing_is_stopped_before_it_is_asked_back(
    open_as: Open, staged: Staged, change: Callable[..., None], scripts: bool
) -> None:
    page = open_as("/exports/", java_script_enabled=scripts)
    row = page.locator(f"#export-{staged.words['queued']}")
    question = page.get_by_role("dialog", name="Stop this export?")
    expect(question).to_be_hidden()
    row.get_by_role("button", name="Cancel Orders since spring").focus()
    page.keyboard.press("Enter")
    expect(question).to_be_visible()
    expect(question).to_contain_text("“Orders since spring” ends now")
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    row.get_by_role("button", name="Cancel Orders since spring").click()
    page.get_by_role("button", name="Let it go on").click()
    expect(question).to_be_hidden()
    expect(row).to_contain_text("Waiting")
    row.get_by_role("button", name="Cancel Orders since spring").click()
    try:
        page.get_by_role("button", name="Stop it").click()
        expect(row).to_contain_text("Cancelled")
    finally:
        pk = key(staged, "queued")
        change("UPDATE exportapp_export SET state = 'queued', error = '', finished_at = NULL WHERE id = ?", pk)
        change("UPDATE exportapp_step SET state = 'waiting', finished_at = NULL WHERE export_id = ?", pk)


def test_question_that_is_open_is_not_swapped_away(open_as: Open, staged: Staged, change: Callable[..., None]) -> None:
    page = open_as("/exports/", scripts=QUICK)
    page.get_by_role("button", name="Cancel Orders since spring").click()
    try:
        change(READ, 160_000, key(staged, "running"))
        page.wait_for_timeout(1500)
        expect(page.get_by_role("dialog", name="Stop this export?")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_text("780,000 of about 1.24 M rows")).to_be_visible()
    finally:
        change(READ, 148_400, key(staged, "running"))


def test_menu_opens_and_closes_by_keyboard(open_as: Open, staged: Staged) -> None:
    page = open_as("/exports/")
    more = page.locator(f"#more-{staged.words['ready']}")
    menu = page.locator("details.more", has=more)
    more.focus()
    page.keyboard.press("Enter")
    expect(menu.get_by_role("link", name="Edit as new")).to_be_visible()
    page.keyboard.press("Tab")
    expect(menu.get_by_role("button", name="Run again")).to_be_focused()
    page.keyboard.press("Escape")
    expect(more).to_be_focused()
    expect(menu.get_by_role("link", name="Edit as new")).to_be_hidden()
    more.click()
    page.locator("h1").click()
    expect(menu.get_by_role("link", name="Edit as new")).to_be_hidden()


def test_file_is_deleted_after_a_question(open_as: Open, staged: Staged, change: Callable[..., None]) -> None:
    page = open_as("/exports/{damaged}/")
    page.locator("details.more summary").click()
    page.get_by_role("button", name="Delete the file…").click()
    question = page.get_by_role("dialog", name="Delete this file?")
    expect(question.get_by_role("button", name="Keep it")).to_be_focused()
    try:
        question.get_by_role("button", name="Delete the file").click()
        expect(page.get_by_text("The file of “Customers, for the newsletter” was deleted.")).to_be_visible()
        expect(page.locator(f"#export-{staged.words['damaged']}")).to_contain_text("file removed")
    finally:
        change(
            "UPDATE exportapp_export SET state = 'ready', expires_at = '2099-01-01' WHERE id = ?",
            key(staged, "damaged"),
        )


def test_list_follows_what_is_typed_and_so_does_the_address(open_as: Open) -> None:
    page = open_as("/exports/")
    expect(page.get_by_role("button", name="Search")).to_be_hidden()
    page.get_by_role("searchbox").type("spring")
    expect(page.locator("a.name")).to_have_text(["Orders since spring"])
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page).to_have_url("/exports/?q=spring")
    page.get_by_role("link", name="Failed").click()
    expect(page.get_by_role("heading", name="No export of yours fits")).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_value("spring")
    page.get_by_role("link", name="Show all of them").click()
    expect(page.locator("a.name")).to_have_count(8)


def test_list_is_searched_without_scripts(open_as: Open) -> None:
    page = open_as("/exports/?state=under-way", java_script_enabled=False)
    page.get_by_role("searchbox").fill("spring")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("a.name")).to_have_text(["Orders since spring"])
    assert "state=under-way" in page.url
    expect(page.locator("#tell")).to_be_hidden()


def test_hash_and_command_are_copied(open_as: Open) -> None:
    page = open_as("/exports/{ready}/", permissions=["clipboard-read", "clipboard-write"])
    for button, place in (("Copy the SHA-256", "#sha"), ("Copy the command", "#command")):
        page.get_by_role("button", name=button).click()
        expect(page.locator("#said")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == page.locator(place).text_content()


def test_bar_goes_on_from_where_it_stood(open_as: Open, staged: Staged, change: Callable[..., None]) -> None:
    """A bar that htmx puts in the place of another would jump: it has nothing to move from."""
    page = open_as("/exports/{running}/", scripts=QUICK)
    page.evaluate(
        """window.stood = []; new MutationObserver(() => {
             window.stood.push(document.querySelector("progress").value);
           }).observe(document.querySelector("main"), { childList: true })"""
    )
    try:
        change(READ, 300_000, key(staged, "running"))
        expect(page.locator("progress")).to_have_js_property("value", 74)
        assert page.evaluate("window.stood")[-1] == 61
    finally:
        change(READ, 148_400, key(staged, "running"))
