"""The pages for when something is wrong: they need neither session nor database, and say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

import pytest
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.test.utils import override_settings
from django.views import defaults

from exportapp.models import Export
from tests.pages import Element, read

HEADINGS = {
    "400": "That could not be understood",
    "403": "That is not open to you",
    "403_csrf": "That did not go through",
    "404": "There is nothing here",
    "410": "The file is damaged",
    "429": "Not just now",
    "500": "Something went wrong on our side",
}


def page_of(name: str) -> Element:
    return read(render_to_string(f"{name}.html", {"export": Export(name="January"), "sentence": "Please wait."}))


@pytest.mark.parametrize("name", HEADINGS)
def test_page_says_what_is_wrong_and_what_to_do_and_leads_back(name: str) -> None:
    page = page_of(name)
    assert page.one("title").text == f"{HEADINGS[name]} · exportapp"
    main = page.one("main")
    assert main.one("h1").text == HEADINGS[name]
    assert main.one("p", cls="tiny").text == f"Error {name[:3]}"
    assert main.one("p", cls="muted").text.endswith(".")
    assert all(hint.text.endswith(".") for hint in main.one("ul", cls="hints").all("li"))
    assert main.one("ul", cls="hints").all("li")
    assert main.one("a", cls="main").attributes["href"].startswith("/")


@pytest.mark.parametrize("name", HEADINGS)
def test_page_has_one_picture_that_comes_from_here_and_nothing_inline(name: str) -> None:
    page = page_of(name)
    [picture] = page.one("main").all("img")
    assert picture.attributes["src"] == "/static/empty-tray.svg"
    assert picture.attributes["alt"] == ""
    assert (Path(__file__).resolve().parents[2] / "static/empty-tray.svg").exists()
    assert not page.all("script")
    assert not [element for element in page.walk() if "style" in element.attributes]


class Absent:
    """A session, or a person, that must not be asked."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"asked for {name}")


def request_without_anything() -> HttpRequest:
    request = RequestFactory().get("/")
    request.session = request.user = Absent()  # type: ignore[assignment]
    return request


@pytest.mark.parametrize(
    ("status", "handler"),
    [(400, defaults.bad_request), (403, defaults.permission_denied), (404, defaults.page_not_found)],
)
def test_page_needs_no_session_and_no_database(status: int, handler: object) -> None:
    """There is no database in this test either."""
    response = handler(request_without_anything(), Exception("opensesame"))  # type: ignore[operator]
    assert response.status_code == status
    assert read(response.content).one("h1").text == HEADINGS[str(status)]


def test_our_own_mistake_needs_no_session_and_no_database() -> None:
    response = defaults.server_error(request_without_anything())
    assert response.status_code == 500
    assert read(response.content).one("h1").text == HEADINGS["500"]


def test_damaged_file_names_the_export_as_text() -> None:
    text = render_to_string("410.html", {"export": Export(name="<b>January</b>")})
    assert "“&lt;b&gt;January&lt;/b&gt;”" in text
    assert re.search(r'href="/exports/[0-9a-f-]{36}/"', text)


@pytest.mark.usefixtures("desk")
@override_settings(DEBUG=False)
def test_address_that_does_not_exist_has_the_page() -> None:
    response = Client().get("/nothing/here")
    assert response.status_code == 404
    assert read(response.content).one("h1").text == HEADINGS["404"]


@pytest.mark.usefixtures("desk")
def test_form_without_its_token_has_the_page() -> None:
    response = Client(enforce_csrf_checks=True).post("/login/", {"username": "alice"})
    assert response.status_code == 403
    page = read(response.content)
    assert page.one("h1").text == HEADINGS["403_csrf"]
    assert page.one("main").one("a").attributes["href"] == "/login/"
