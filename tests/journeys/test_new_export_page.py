"""The page of a new export in Debian's Chromium: the range on the chart, columns in order, conditions, the card beside."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from tests.journeys.axe import findings
from tests.journeys.quickstart import Quickstart
from tests.services.base import find_program

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
PHONE = {"width": 390, "height": 844}
ORDERS = "/exports/new/orders/"
DAYS_OF_2026 = [[f"2026-{month:02}-{day:02}", month * day] for month in range(1, 11) for day in range(1, 29)]

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium", "chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, desk: Quickstart) -> Iterator[Visit]:
    """Opens a page of the desk as alice, with a chart of 2026; at the end no browser may have complained."""
    complaints: list[str] = []
    contexts = []

    def open_page(address: str = ORDERS, days: list[Any] = DAYS_OF_2026, **options: Any) -> Page:
        context = chromium.new_context(base_url=desk.address, timezone_id="Europe/Berlin", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route("**/histogram.json", lambda route: route.fulfill(json={"unit": "day", "days": days}))
        page.goto("/login/")
        page.locator("[name=username]").fill("alice")
        page.locator("[name=password]").fill(desk.passwords["alice"])
        page.locator("main button[type=submit]").click()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [one for one in complaints if "status of 422" not in one] == []


def typed_range(page: Page) -> tuple[str, str]:
    return page.get_by_label("From").input_value(), page.get_by_label("Until, not included").input_value()


def drag(page: Page, start: float, end: float) -> None:
    """Over the chart, from one place to another, as parts of its width."""
    box = page.locator(".plot").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * start, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (start + end) / 2, box["y"] + 55)
    page.mouse.move(box["x"] + box["width"] * end, box["y"] + 60)
    page.mouse.up()


def order(page: Page) -> list[str]:
    """The ticked columns as the form would send them."""
    return page.evaluate("new FormData(document.getElementById('recipe')).getAll('columns')")


# --- datasets --------------------------------------------------------------------------------------------------------


def test_search_among_datasets_looks_while_one_types_and_enter_opens_the_only_one_left(visit: Visit) -> None:
    page = visit("/exports/new/")
    cards = page.locator(".choice:visible")
    assert cards.count() > 3
    page.get_by_role("searchbox").fill("tracking numb")
    expect(cards).to_have_count(1)
    expect(page.locator("#found")).to_have_text(re.compile("^1 of "))
    page.reload()  # the address keeps the words
    expect(cards).to_have_count(1)
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", name="Export orders")).to_be_visible()


# --- the range -------------------------------------------------------------------------------------------------------


def test_range_is_dragged_on_the_chart_and_stands_in_the_fields(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#hist")).to_be_visible()
    page.get_by_label("From").fill("2026-02-01")
    page.get_by_label("Until, not included").fill("2026-08-01")
    drag(page, 0.2, 0.6)
    start, end = typed_range(page)
    assert "2026-02-15" < start < "2026-04-01" < "2026-06-15" < end < "2026-08-01"
    first, last = page.get_by_role("slider").all()
    expect(first).to_have_attribute("aria-valuetext", re.compile(rf"\b{int(start[8:10])} \w+ 2026"))
    expect(last).to_have_attribute("aria-valuetext", re.compile("not included$"))
    expect(page.locator("#range-words")).to_contain_text("is not included")


def test_handle_is_moved_by_keyboard_and_never_past_the_other(visit: Visit) -> None:
    page = visit()
    page.get_by_label("From").fill("2026-03-01 00:00")
    page.get_by_label("Until, not included").fill("2026-03-05 00:00")
    first, last = page.get_by_role("slider").all()
    first.press("ArrowRight")
    assert typed_range(page)[0] == "2026-03-02 00:00"
    first.press("PageUp")
    assert typed_range(page) == ("2026-03-04 00:00", "2026-03-05 00:00")
    last.press("PageUp")
    assert typed_range(page)[1] == "2026-04-01 00:00"
    last.press("Home")
    assert typed_range(page)[1] == "2026-03-05 00:00"


def test_typed_range_moves_the_handles_and_one_that_is_none_takes_them_away(visit: Visit) -> None:
    page = visit()
    slider = page.get_by_role("slider").first
    page.get_by_label("From").fill("2026-06-15 12:00")
    expect(slider).to_have_attribute("aria-valuetext", "Mon, 15 June 2026 at 12:00")
    page.get_by_label("From").fill("2026-06-31")
    expect(slider).to_be_hidden()


def test_drag_that_is_given_up_by_escape_leaves_the_range_as_it_was(visit: Visit) -> None:
    page = visit()
    before = typed_range(page)
    box = page.locator(".plot").bounding_box()
    assert box
    page.get_by_role("slider").first.focus()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 50)
    assert typed_range(page) != before
    page.keyboard.press("Escape")
    page.mouse.up()
    assert typed_range(page) == before


def test_presets_are_days_of_the_zone_that_is_typed(visit: Visit) -> None:
    page = visit()
    page.clock.install(time="2026-05-31T23:30:00Z")
    page.goto(ORDERS)
    page.get_by_label("Time zone").fill("Asia/Tokyo")
    page.get_by_role("button", name="Today").click()
    assert typed_range(page) == ("2026-06-01 00:00", "2026-06-02 00:00")
    page.get_by_label("Time zone").fill("America/New_York")
    page.get_by_role("button", name="Last quarter").click()
    assert typed_range(page) == ("2026-01-01 00:00", "2026-04-01 00:00")
    expect(page.get_by_role("button", name="Last quarter")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Today")).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize(
    ("zone", "start", "end", "words"),
    [
        ("Europe/Berlin", "2026-03-01", "2026-04-01", "once in this range: 29 March 2026 has 23 hours."),
        ("Europe/Berlin", "2026-01-01", "2027-01-01", "29 March 2026 has 23 hours, 25 October 2026 has 25 hours."),
        ("Australia/Lord_Howe", "2026-04-01", "2026-04-10", "5 April 2026 has 24.5 hours."),
        ("Europe/Berlin", "2024-01-01", "2027-01-01", "6 times in this range, first on 31 March 2024."),
        ("Europe/Berlin", "2026-04-01", "2026-05-01", ""),
        ("Asia/Tokyo", "2026-01-01", "2027-01-01", ""),
    ],
)
def test_days_on_which_clocks_change_are_told(visit: Visit, zone: str, start: str, end: str, words: str) -> None:
    page = visit()
    page.get_by_label("From").fill(start)
    page.get_by_label("Until, not included").fill(end)
    page.get_by_label("Time zone").fill(zone)
    expect(page.locator("#range-words")).to_contain_text(f"{zone} is UTC+")
    clock = page.locator("#range-words .clock")
    if words:
        expect(clock).to_contain_text(words)
    else:
        expect(clock).to_have_count(0)


def test_page_works_without_a_histogram(visit: Visit) -> None:
    page = visit(days=[])
    expect(page.locator("#estimate .facts")).to_be_visible()
    expect(page.locator("#hist")).to_be_hidden()
    page.get_by_role("button", name="Year to date").click()
    assert typed_range(page)[0].endswith("-01-01 00:00")


# --- columns ---------------------------------------------------------------------------------------------------------


def test_columns_are_moved_by_buttons_by_keys_and_by_dragging(visit: Visit) -> None:
    page = visit()
    assert order(page)[:3] == ["id", "placed_at", "status"]
    page.get_by_role("button", name="Move Status earlier").click()
    assert order(page)[:3] == ["id", "status", "placed_at"]
    expect(page.locator("#moved")).to_have_text(re.compile(r"^Status is now number 2 of \d+\.$"))
    page.locator("input[value=status]").press("Alt+ArrowUp")
    assert order(page)[:3] == ["status", "id", "placed_at"]
    expect(page.locator("input[value=status]")).to_be_focused()

    grip = page.locator(".tick", has_text="Placed at").locator(".grip")
    grip.hover()
    page.mouse.down()
    page.locator(".tick").first.hover(position={"x": 20, "y": 4})
    page.mouse.up()
    assert order(page)[:3] == ["placed_at", "status", "id"]
    page.get_by_role("button", name="Default").click()
    assert order(page)[:3] == ["id", "placed_at", "status"]


def test_order_of_columns_is_kept_when_the_form_comes_back_and_is_that_of_the_export(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="None").click()
    for name in ("id", "status", "total"):
        page.locator(f"input[value={name}]").check()
    for _ in range(7):
        page.get_by_role("button", name="Move Total earlier").click()
    page.get_by_label("From").fill("2026-02-30")
    page.get_by_role("button", name="Start export").last.click()
    expect(page.get_by_role("alert")).to_be_focused()
    assert order(page) == ["total", "id", "status"]
    page.get_by_label("From").fill("2026-10-01")
    page.get_by_label("Until, not included").fill("2026-10-02")
    page.get_by_label("Name of the file").fill("Total first")
    page.get_by_role("button", name="Start export").last.click()
    page.get_by_role("link", name="Total first", exact=True).click()
    expect(page.locator("main")).to_contain_text("Total, Order number, Status")


# --- conditions ------------------------------------------------------------------------------------------------------


def test_condition_has_the_field_that_its_column_wants_and_offers_short_lists(visit: Visit) -> None:
    page = visit()
    column, op = page.get_by_label("Column", exact=True), page.get_by_label("Comparison")
    value = page.locator("[name=filter-low]")
    for name, kind in (("due_on", "date"), ("total", "number"), ("placed_at", "text"), ("email", "text")):
        column.select_option(name)
        expect(value).to_have_attribute("type", kind) if kind != "text" else expect(value).to_have_js_property(
            "type", kind
        )
    column.select_option("status")
    op.select_option("in")
    for choice in ("paid", "refunded", "shipped"):
        page.get_by_role("button", name=choice, exact=True).click()
    page.get_by_role("button", name="refunded", exact=True).click()
    expect(value).to_have_value("paid, shipped")
    assert page.evaluate("[...document.querySelectorAll('[name=filter-op] option:enabled')].map((one) => one.value)") == [
        "eq", "in", "contains", "empty", "not_empty"]  # fmt: skip


def test_field_of_a_better_type_never_drops_what_was_typed(visit: Visit) -> None:
    page = visit()
    page.get_by_label("Column", exact=True).select_option("email")
    value = page.locator("[name=filter-low]")
    value.fill("12,50")
    page.get_by_label("Column", exact=True).select_option("total")
    expect(value).to_have_value("12,50")


def test_conditions_come_and_go_without_a_reload(visit: Visit) -> None:
    page = visit()
    page.evaluate("window.neverReloaded = true")
    page.get_by_label("Column", exact=True).select_option("status")
    page.locator("[name=filter-low]").fill("paid")
    page.get_by_role("button", name="Add a condition").click()
    second = page.get_by_label("Column", exact=True).nth(1)
    expect(second).to_be_focused()
    second.select_option("country")
    page.get_by_role("button", name="Remove this condition").first.click()
    expect(page.get_by_label("Column", exact=True)).to_have_count(1)
    expect(page.get_by_label("Column", exact=True)).to_have_value("country")
    assert page.evaluate("window.neverReloaded")


# --- formats ---------------------------------------------------------------------------------------------------------


def test_what_a_spreadsheet_would_spoil_is_said_with_the_remedy_in_one_click(visit: Visit) -> None:
    page = visit()
    warning = page.locator("#damage")
    expect(warning).to_be_hidden()
    page.locator("input[value=tracking_id]").check()
    expect(warning).to_contain_text("CSV would change Tracking number (zeros in front).")
    page.locator("input[value=tsv]").check()
    expect(warning).to_contain_text("TSV would change")
    page.get_by_role("button", name="Use the Excel format instead").click()
    expect(page.locator("input[value=xlsx]")).to_be_checked()
    expect(warning).to_be_hidden()


def test_values_of_the_first_rows_are_looked_at_as_well(visit: Visit) -> None:
    page = visit(ORDERS)

    def with_zeros(route: Route) -> None:
        cells = "".join(f"<td>{'007' if name == 'status' else name}</td>" for name in sent(route.request)["columns"])
        route.fulfill(body=f"<table><thead></thead><tbody><tr>{cells}</tr></tbody></table>", content_type="text/html")

    page.route("**/estimate", with_zeros)
    page.reload()
    expect(page.locator("#damage")).to_contain_text("Status (zeros in front)")


# --- the card beside -------------------------------------------------------------------------------------------------


def sent(request: Request) -> dict[str, list[str]]:
    return parse_qs(request.post_data or "", keep_blank_values=True)


def test_card_tells_rows_and_shows_the_first_ones_as_the_file_will_have_them(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#estimate .fact").first).to_contain_text("row")
    head = page.locator("#first-rows th")
    expect(head.first).to_have_text("Order number")
    page.get_by_role("button", name="Move Placed at earlier").click()
    expect(head.first).to_have_text("Placed at")
    expect(page.locator("#first-rows tbody tr")).to_have_count(20)


def test_card_asks_once_when_the_typing_is_over_and_not_for_the_name(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#estimate .facts")).to_be_visible()
    asked: list[dict[str, list[str]]] = []
    page.on("request", lambda request: asked.append(sent(request)) if request.url.endswith("/estimate") else None)
    page.get_by_label("Name of the file").press_sequentially("No matter")
    page.wait_for_timeout(700)
    assert asked == []
    with page.expect_request("**/estimate"):
        page.get_by_label("From").fill("")
        page.get_by_label("From").press_sequentially("2026-09-01", delay=30)
    page.wait_for_timeout(700)
    assert [one["start"] for one in asked] == [["2026-09-01"]]


def test_old_answer_stays_dimmed_while_a_new_one_is_under_way_and_a_late_one_does_not_win(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#estimate .facts")).to_be_visible()
    held: list[Route] = []
    page.route("**/estimate", lambda route: held.append(route))
    side = page.locator("#start")
    page.locator("input[value=email]").check()
    expect(side).to_have_class(re.compile(r"\bold\b"))
    expect(page.locator("#estimate .facts")).to_be_visible()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/estimate")):  # the first, cancelled
        page.locator("input[value=due_on]").check()
        page.wait_for_timeout(800)
    expect(side).to_have_class(re.compile(r"\bold\b"))
    held[-1].fulfill(body='<p class="newest">newest</p>', content_type="text/html")
    expect(page.locator("#estimate")).to_have_text("newest")
    expect(side).not_to_have_class(re.compile(r"\bold\b"))


def test_form_is_sent_while_the_estimate_is_still_under_way(visit: Visit) -> None:
    page = visit()
    page.route("**/estimate", lambda route: None)  # never answers
    page.reload()
    page.get_by_label("Name of the file").fill("Not held up")
    page.get_by_role("button", name="Start export").last.click()
    expect(page.get_by_role("link", name="Not held up", exact=True)).to_be_visible()


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["/exports/new/", ORDERS, "/exports/new/revenue/", "/exports/new/products/"])
def test_axe_finds_nothing(visit: Visit, address: str, scheme: str) -> None:
    page = visit(address, color_scheme=scheme)
    if address != "/exports/new/":
        expect(page.locator("#first-rows")).to_be_visible()
        page.get_by_role("button", name="All", exact=True).last.click()
        page.get_by_label("Column", exact=True).select_option(index=1)
        page.get_by_role("button", name="Add a condition").click()
        page.wait_for_timeout(600)  # until the estimate is asked for; while it is, the last one is dimmed
        expect(page.locator("[aria-busy]")).to_have_count(0)
    assert findings(page) == []


def test_phone_shows_the_rows_below_and_is_not_wider_than_itself(visit: Visit) -> None:
    page = visit(viewport=PHONE, has_touch=True)
    expect(page.locator("#first-rows")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator(".jump", has_text="row").click()
    expect(page.get_by_role("button", name="Start export").last).to_be_in_viewport()


def test_presets_and_remedies_work_without_javascript(visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    page.get_by_role("button", name="Last quarter").click()
    start, end = (datetime.fromisoformat(one) for one in typed_range(page))
    assert 90 <= (end - start).days <= 92
    expect(page.get_by_role("alert")).to_have_count(0)  # a help is no attempt to start
    page.locator("input[value=tracking_id]").check()
    page.get_by_role("button", name="Last month").click()
    expect(page.locator("#damage")).to_contain_text("Tracking number (zeros in front)")
    page.get_by_role("button", name="Use the Excel format instead").click()
    expect(page.locator("input[value=xlsx]")).to_be_checked()
    expect(page.locator("#damage")).to_be_hidden()
