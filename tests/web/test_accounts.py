"""Signing in, passwords and how often one may try: what is told, what is not, and what a mail brings."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.cache import cache
from django.core.cache.backends import base, locmem
from django.core.mail import EmailMultiAlternatives
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from exportapp import notifications
from exportapp.engine.errors import ExportError
from exportapp.web import accounts
from tests.pages import Element, beside, read
from tests.scenes import the_form
from tests.services import wait_until

NEW = "a horse of another colour"


@pytest.fixture(autouse=True)
def _fresh_tries(settings: Settings) -> Iterator[None]:
    settings.BASE_URL = "https://exports.example.com"
    cache.clear()
    yield
    cache.clear()


def sign_in(client: Client, name: str, password: str, comes_from: str = "192.0.2.1") -> HttpResponse:
    return client.post("/login/", {"username": name, "password": password}, REMOTE_ADDR=comes_from)


def fail(times: int, name: str = "alice", comes_from: str = "192.0.2.1") -> None:
    for _ in range(times):
        assert sign_in(Client(), name, "wrong", comes_from).status_code == 200


def main_of(response: HttpResponse) -> Element:
    return read(response.content).one("main")


# --- the pages --------------------------------------------------------------------------------------------------------


def test_sign_in_that_fails_is_told_at_both_fields_and_keeps_the_name(client: Client, alice: User) -> None:
    page = main_of(sign_in(client, "alice", "wrong"))
    told = "User name and password do not fit together. Capital letters matter in both."
    assert page.one(role="alert").text == told
    for name in ("username", "password"):
        field = page.one("input", name=name)
        assert (field.attributes["aria-invalid"], beside(page, field)) == ("true", told)
    assert page.one("input", name="username").attributes["value"] == "alice"
    assert "value" not in page.one("input", name="password").attributes


def test_empty_sign_in_is_told_field_by_field(client: Client) -> None:
    page = main_of(client.post("/login/", {}))
    for name in ("username", "password"):
        assert beside(page, page.one("input", name=name)) == "This field is required."


def test_menu_has_the_name_the_password_and_the_way_out(client: Client, alice: User) -> None:
    sign_in(client, "alice", "alice-password")
    menu = read(client.get("/exports/").content).one("details", cls="account")
    assert menu.one("summary").text == "Account of alice"
    assert "alice@example.com" in menu.text
    assert menu.one("a").attributes["href"] == "/password/"
    assert client.post(menu.one("form").attributes["action"])["Location"] == "/login/"
    assert client.get("/exports/").status_code == 302


def test_password_is_changed_and_other_browsers_are_signed_out(client: Client, alice: User) -> None:
    other = Client()
    for browser in (client, other):
        sign_in(browser, "alice", "alice-password")
    typed = {"old_password": "alice-password", "new_password1": NEW, "new_password2": NEW}
    page = main_of(client.post("/password/", typed, follow=True))
    assert page.one("ul", cls="notes").one("li").text.startswith("Your password is changed.")
    assert client.get("/exports/").status_code == 200
    assert other.get("/exports/").status_code == 302
    assert sign_in(Client(), "alice", NEW).status_code == 302


@pytest.mark.parametrize(
    ("typed", "field", "told"),
    [
        ({"old_password": "wrong"}, "old_password", "This is not your current password."),
        ({"new_password2": "another"}, "new_password2", "This is not the same as the one above."),
        (
            {"new_password1": "hn5Kq", "new_password2": "hn5Kq"},
            "new_password2",
            "It must contain at least 8 characters.",
        ),
        ({"new_password1": "password1", "new_password2": "password1"}, "new_password2", "This password is too common."),
    ],
)
def test_password_that_cannot_be_changed_is_told_at_its_field(
    client: Client, alice: User, typed: dict[str, str], field: str, told: str
) -> None:
    client.force_login(alice)
    page = main_of(
        client.post(
            "/password/", {"old_password": "alice-password", "new_password1": NEW, "new_password2": NEW, **typed}
        )
    )
    control = page.one("input", name=field)
    assert control.attributes["aria-invalid"] == "true"
    assert told in beside(page, control)
    assert alice.check_password("alice-password")


# --- a forgotten password ---------------------------------------------------------------------------------------------


def ask(client: Client, address: str) -> HttpResponse:
    return client.post("/password/forgotten/", {"email": address}, follow=True)


def the_mail() -> EmailMultiAlternatives:
    wait_until(lambda: len(mail.outbox) > 0, 5, "the mail")
    [message] = mail.outbox
    assert isinstance(message, EmailMultiAlternatives)
    return message


def test_mail_brings_a_link_that_works_once(client: Client, alice: User) -> None:
    ask(client, "Alice@Example.com")
    message = the_mail()
    assert (message.to, message.subject) == (["alice@example.com"], "A new password for the export desk")
    html = str(message.alternatives[0][0])
    [address] = re.findall(r"https://exports\.example\.com(/password/new/\S+/)", str(message.body))
    assert read(html).one("a").attributes["href"] == f"https://exports.example.com{address}"
    until = timezone.now() + timedelta(days=3)
    for text in (str(message.body), read(html).text):
        assert "“alice”" in text
        assert f"once, until {until:%-d %B %Y}" in text

    page = client.get(address, follow=True)
    assert "For the account alice." in main_of(page).text
    done = client.post(page.redirect_chain[-1][0], {"new_password1": NEW, "new_password2": NEW}, follow=True)
    assert "Your new password is set. Sign in with it." in main_of(done).text
    assert sign_in(Client(), "alice", NEW).status_code == 302
    again = main_of(Client().get(address, follow=True))
    assert again.one("h1").text == "This link works no more"
    assert not again.all("form")


def test_link_of_an_older_password_works_no_more(client: Client, alice: User) -> None:
    ask(client, "alice@example.com")
    [address] = re.findall(r"https://exports\.example\.com(/password/new/\S+/)", str(the_mail().body))
    alice.set_password(NEW)
    alice.save()
    assert main_of(Client().get(address, follow=True)).one("h1").text == "This link works no more"


def test_nobody_learns_whether_an_address_has_an_account(client: Client, alice: User, bob: User) -> None:
    User.objects.filter(pk=bob.pk).update(is_active=False)
    answers = [ask(client, address) for address in ("alice@example.com", "bob@example.com", "nobody@example.com")]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert the_mail().to == ["alice@example.com"]


def test_answer_does_not_wait_for_the_mail_server(
    client: Client, alice: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(message: EmailMultiAlternatives) -> None:
        assert answered.wait(5)
        raise ExportError("The mail server did not take the mail.", detail="451 later")

    answered = threading.Event()
    monkeypatch.setattr(notifications, "deliver", refuse)
    assert ask(client, "alice@example.com").status_code == 200
    answered.set()
    wait_until(lambda: "451 later" in caplog.text, 5, "the log")


# --- how often --------------------------------------------------------------------------------------------------------


def test_after_ten_tries_at_a_name_even_the_right_password_has_to_wait(alice: User) -> None:
    for number in range(accounts.TRIES):
        fail(1, comes_from=f"192.0.2.{number}")
    response = sign_in(Client(), "alice", "alice-password", "198.51.100.1")
    assert (response.status_code, response["Retry-After"]) == (429, "600")
    page = main_of(response)
    assert page.one(role="alert").text.startswith("That was often enough for now. Wait ten minutes")
    assert page.one(role="alert").one("a").attributes["href"] == "/password/forgotten/"
    assert page.one("input", name="username").attributes["value"] == "alice"
    assert "_auth_user_id" not in response.client.session  # type: ignore[attr-defined]


def test_address_that_guesses_at_many_names_has_to_wait_and_costs_the_next_name_nothing(alice: User, bob: User) -> None:
    for number in range(accounts.TRIES):
        fail(1, name=f"name {number}")
    for _ in range(accounts.TRIES + 1):
        assert sign_in(Client(), "alice", "wrong").status_code == 429
    assert sign_in(Client(), "alice", "alice-password", "198.51.100.1").status_code == 302


@pytest.mark.parametrize("name", ["ALICE", " alice ", "ａｌｉｃｅ"])
def test_other_spellings_of_a_name_are_the_same_name(alice: User, name: str) -> None:
    for number in range(accounts.TRIES):
        fail(1, name, f"192.0.2.{number}")
    assert sign_in(Client(), "alice", "alice-password", "198.51.100.1").status_code == 429


def test_names_that_nobody_has_have_to_wait_as_well(alice: User) -> None:
    for number in range(accounts.TRIES):
        fail(1, "nobody", f"192.0.2.{number}")
    assert sign_in(Client(), "nobody", "wrong", "198.51.100.1").status_code == 429


def test_who_signs_in_begins_anew(alice: User) -> None:
    for day in range(3):
        for number in range(accounts.TRIES - 1):
            fail(1, comes_from=f"192.0.{day}.{number}")
        assert sign_in(Client(), "alice", "alice-password", "198.51.100.1").status_code == 302


def test_one_known_password_buys_an_address_no_further_tries(alice: User, bob: User) -> None:
    for number in range(accounts.TRIES - 1):
        fail(1, name=f"name {number}")
    assert sign_in(Client(), "bob", "bob-password").status_code == 302
    fail(1, name="one more")
    assert sign_in(Client(), "alice", "wrong").status_code == 429


def test_ten_minutes_later_it_is_open_again(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(accounts.TRIES)
    assert sign_in(Client(), "alice", "alice-password").status_code == 429
    for module in (base, locmem):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: time.time() + accounts.SECONDS + 1))
    assert sign_in(Client(), "alice", "alice-password").status_code == 302


def test_new_password_lets_in_whom_somebody_else_kept_out(client: Client, alice: User) -> None:
    for number in range(accounts.TRIES):
        fail(1, comes_from=f"192.0.2.{number}")
    ask(client, "alice@example.com")
    [address] = re.findall(r"https://exports\.example\.com(/password/new/\S+/)", str(the_mail().body))
    page = client.get(address, follow=True)
    client.post(page.redirect_chain[-1][0], {"new_password1": NEW, "new_password2": NEW})
    assert sign_in(Client(), "alice", NEW, "198.51.100.1").status_code == 302


def test_behind_a_proxy_it_is_the_address_that_the_proxy_saw(alice: User, settings: Settings) -> None:
    settings.BEHIND_PROXY = True
    for number in range(accounts.TRIES + 5):
        typed = {"username": f"name {number}", "password": "wrong"}
        headers = {"X-Forwarded-For": f"6.6.6.{number}, 192.0.2.{number}"}
        assert Client().post("/login/", typed, headers=headers).status_code == 200


def test_current_password_cannot_be_guessed_without_end(client: Client, alice: User) -> None:
    client.force_login(alice)
    typed = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    for _ in range(accounts.TRIES):
        assert client.post("/password/", typed).status_code == 200
    response = client.post("/password/", {**typed, "old_password": "alice-password"})
    assert response.status_code == 429
    assert alice.check_password("alice-password")


def test_nobody_s_mailbox_is_flooded(client: Client, alice: User) -> None:
    for _ in range(accounts.TRIES):
        assert ask(client, "alice@example.com").status_code == 200
    assert ask(client, "alice@example.com").status_code == 429
    wait_until(lambda: len(mail.outbox) == accounts.TRIES, 5, "the mails")


# --- operators --------------------------------------------------------------------------------------------------------


def test_admin_has_the_same_sign_in_and_the_same_tries(client: Client, root: User) -> None:
    response = client.get("/admin/exportapp/export/", follow=True)
    assert response.redirect_chain[-1][0] == "/login/?next=/admin/exportapp/export/"
    form = the_form(read(response.content))
    typed = dict(form.sends()) | {"username": "root", "password": "root-password"}
    assert client.post("/login/", typed)["Location"] == "/admin/exportapp/export/"
    assert Client().post("/admin/login/", typed).status_code == 405


def test_who_is_no_operator_is_told_so_and_not_sent_round_and_round(client: Client, alice: User) -> None:
    client.force_login(alice)
    response = client.get("/admin/", follow=True)
    assert response.status_code == 403
    assert main_of(response).one("h1").text == "That is not open to you"
    assert "This part of the desk is for operators." in main_of(response).text
