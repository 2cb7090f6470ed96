"""The pages for when something is wrong: they need neither session nor database, and say what to do."""

from __future__ import annotations

import pytest
from django.template.loader import render_to_string
from django.test import Client
from django.test.utils import override_settings

from tests.pages import read

HEADINGS = {
    "403": "That did not go through",
    "403_csrf": "That did not go through",
    "404": "There is nothing here",
    "500": "Something went wrong on our side",
}


@pytest.mark.parametrize("name", HEADINGS)
def test_page_says_what_is_wrong_and_leads_back(name: str) -> None:
    page = read(render_to_string(f"{name}.html"))
    assert page.one("h1").text == HEADINGS[name]
    assert page.one("title").text == f"{HEADINGS[name]} · exportapp"
    assert page.one("p", cls="muted").text
    assert page.one("a").attributes["href"] == "/"


@pytest.mark.usefixtures("desk")
@override_settings(DEBUG=False)
def test_address_that_does_not_exist_has_the_page() -> None:
    response = Client().get("/nothing/here")
    assert response.status_code == 404
    assert read(response.content).one("h1").text == HEADINGS["404"]
