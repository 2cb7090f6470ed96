"""Over the limit: a sentence, HTTP 429, and nothing that was typed is lost."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from exportapp.models import Event, Export, ExportState
from tests.pages import changed
from tests.scenes import ask, in_state, new_form, send, the_form
from tests.web.test_new_export import FILLED, ORDERS

SENTENCE = "You have as many exports under way as the export desk takes from one person (1)."


def test_form_keeps_what_was_typed_and_says_why(alices: Client, alice: User, settings: Settings) -> None:
    settings.EXPORTS_PER_PERSON = 1
    ask(alice)
    response = send(alices, ORDERS, changed(the_form(new_form(alices)).sends(), **FILLED))
    assert response.status_code == 429
    page = response.content.decode()
    assert SENTENCE in page
    assert 'value="My orders"' in page
    assert Export.objects.count() == 1


def test_run_again_says_why(alices: Client, alice: User, settings: Settings) -> None:
    settings.EXPORTS_PER_PERSON = 1
    ended = in_state(alice, ExportState.CANCELLED)
    ask(alice)
    response = alices.post(f"/exports/{ended.pk}/again")
    assert response.status_code == 429
    assert SENTENCE in response.content.decode()
    assert Export.objects.count() == 2


def test_history_says_where_a_request_came_from(alices: Client, alice: User, settings: Settings) -> None:
    export = ask(alice)
    settings.BEHIND_PROXY = False
    alices.post(f"/exports/{export.pk}/cancel", headers={"X-Forwarded-For": "6.6.6.6"}, REMOTE_ADDR="192.0.2.7")
    assert Event.objects.get(kind="cancelled").origin == "web 192.0.2.7"


def test_behind_a_proxy_it_is_the_address_that_the_proxy_saw(alices: Client, alice: User, settings: Settings) -> None:
    export = ask(alice)
    settings.BEHIND_PROXY = True
    alices.post(f"/exports/{export.pk}/cancel", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.8"})
    assert Event.objects.get(kind="cancelled").origin == "web 192.0.2.8"


def test_what_no_request_changes_names_its_process(alice: User) -> None:
    ask(alice)
    host, _, process = Event.objects.get().origin.rpartition(":")
    assert host
    assert process.isdigit()
