"""Who gets in where: every address for every kind of person, and what a wrong method or an unknown id is answered."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, get_resolver

from exportapp.models import Event, Export, ExportState
from tests.scenes import browser, everything, in_state

Cast = dict[str, User | AnonymousUser]


@pytest.fixture
def cast(alice: User, bob: User, charlie: User, person: Callable[..., User]) -> Cast:
    """Everybody who may come; the exports are those of alice, and of two others who had the right once."""

    def operator(name: str, *rights: str) -> User:
        made = person(name, is_staff=True)
        made.user_permissions.set(Permission.objects.filter(codename__in=rights))
        return made

    return {
        "anonymous": AnonymousUser(),
        "owner": alice,
        "colleague": bob,
        "stranger": charlie,
        "operator": operator("operator", "view_export", "change_export"),
        "watcher": operator("watcher", "view_export"),  # an operator without the right to change
        "staff": operator("staff"),
        "pretender": given(person("pretender"), "view_export", "change_export"),  # rights, but not of the staff
        "root": person("root", is_staff=True, is_superuser=True),
        "disabled owner": person("disabled owner", "sales"),
        "owner who left": person("owner who left", "sales"),
    }


def given(made: User, *rights: str) -> User:
    made.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return made


PEOPLE = ["anonymous", "owner", "colleague", "stranger", "operator", "watcher", "staff", "pretender", "root",
          "disabled owner", "owner who left"]  # fmt: skip

# Method and address, and what each of the people above is answered. 302 to the sign-in is "in".
MATRIX = [
    #                                      anon  own  coll  str  oper watch staff pret root  dis   left
    ("GET", "/",                         ["in", 302, 302, 302, 302, 302, 302, 302, 302, "in", 302]),
    ("GET", "/exports/",                 ["in", 200, 200, 200, 200, 200, 200, 200, 200, "in", 200]),
    ("GET", "/exports/new/",             ["in", 200, 200, 200, 200, 200, 200, 200, 200, "in", 200]),
    ("GET", "/exports/new/orders/",      ["in", 200, 200, 404, 404, 404, 404, 404, 200, "in", 404]),
    ("POST", "/exports/new/orders/",     ["in", 422, 422, 404, 404, 404, 404, 404, 422, "in", 404]),
    ("GET", "/exports/new/orders/?like={id}", ["in", 200, 404, 404, 404, 404, 404, 404, 404, "in", 404]),
    ("GET", "/exports/new/orders/histogram.json", ["in", 200, 200, 404, 404, 404, 404, 404, 200, "in", 404]),
    ("POST", "/exports/new/orders/estimate", ["in", 200, 200, 404, 404, 404, 404, 404, 200, "in", 404]),
    ("GET", "/exports/new/nothing/",     ["in", 404, 404, 404, 404, 404, 404, 404, 404, "in", 404]),
    ("GET", "/exports/{id}/",            ["in", 200, 404, 404, 200, 200, 404, 404, 200, "in", 200]),
    ("GET", "/exports/{id}/download",    ["in", 200, 404, 404, 200, 200, 404, 404, 200, "in", 404]),
    ("HEAD", "/exports/{id}/download",   ["in", 200, 404, 404, 200, 200, 404, 404, 200, "in", 404]),
    ("GET", "/exports/{id}/receipt.json", ["in", 200, 404, 404, 200, 200, 404, 404, 200, "in", 200]),
    ("POST", "/exports/{id}/cancel",     ["in", 302, 404, 404, 302, 404, 404, 404, 302, "in", 302]),
    ("POST", "/exports/{id}/again",      ["in", 302, 404, 404, 404, 404, 404, 404, 404, "in", 302]),
    ("POST", "/exports/{id}/remove",     ["in", 302, 404, 404, 404, 404, 404, 404, 404, "in", 302]),
    ("GET", "/admin/",                   ["in", "in", "in", "in", 200, 200, 200, "in", 200, "in", "in"]),
    ("GET", "/admin/exportapp/export/",  ["in", "in", "in", "in", 200, 200, 403, "in", 200, "in", "in"]),
    ("GET", "/admin/exportapp/export/{id}/change/",
                                         ["in", "in", "in", "in", 200, 200, 403, "in", 200, "in", "in"]),
    ("GET", "/admin/exportapp/step/",    ["in", "in", "in", "in", 403, 403, 403, "in", 200, "in", "in"]),
    ("GET", "/admin/auth/user/",         ["in", "in", "in", "in", 403, 403, 403, "in", 200, "in", "in"]),
    ("GET", "/login/",                   [200, 302, 302, 302, 302, 302, 302, 302, 302, 200, 302]),
    ("POST", "/logout/",                 [302] * 11),
    ("GET", "/password/",                ["in", 200, 200, 200, 200, 200, 200, 200, 200, "in", 200]),
    ("GET", "/password/forgotten/",      [200] * 11),
    ("GET", "/password/forgotten/sent/", [200] * 11),
    ("GET", "/password/new/MQ/no-token/", [200] * 11),
    ("GET", "/admin/login/",             ["in", 403, 403, 403, 302, 302, 302, 403, 302, "in", 403]),
    ("GET", "/favicon.ico",              [302] * 11),
    ("GET", "/healthz",                  [200] * 11),
    ("GET", "/readyz",                   [200] * 11),
]  # fmt: skip


def export_of(cast: Cast, name: str) -> Export:
    """The ready export that somebody asks for: their own if they had one, else alice's."""
    owner = cast[name if "owner" in name else "owner"]
    assert isinstance(owner, User)
    return in_state(owner, ExportState.READY)


def as_they_are_now(cast: Cast) -> None:
    """After the exports were made, one owner was disabled, and one left the group."""
    User.objects.filter(username="disabled owner").update(is_active=False)
    left = cast["owner who left"]
    assert isinstance(left, User)
    left.groups.clear()


def answer(client: Client, method: str, address: str) -> HttpResponse:
    return client.generic(method, address)


@pytest.mark.parametrize(("method", "address", "answers"), MATRIX, ids=[f"{row[0]} {row[1]}" for row in MATRIX])
def test_everybody_gets_in_where_they_may_and_nowhere_else(
    cast: Cast, method: str, address: str, answers: list[int | str]
) -> None:
    exports = {name: export_of(cast, name) for name in PEOPLE}
    browsers = {name: browser(cast[name]) for name in PEOPLE}  # signed in before they lost their rights
    as_they_are_now(cast)
    found: dict[str, int | str] = {}
    for name in PEOPLE:
        before = everything()
        response = answer(browsers[name], method, address.format(id=exports[name].pk))
        sign_in = response.status_code == 302 and "/login/" in response["Location"] and address != "/logout/"
        found[name] = "in" if sign_in else response.status_code
        response.getvalue()  # a file that is sent closes with its last byte
        if found[name] in ("in", 403, 404):
            assert everything() == before, name
    assert found == dict(zip(PEOPLE, answers, strict=True))


def test_every_address_is_in_the_matrix() -> None:
    patterns = [one for one in get_resolver().url_patterns if isinstance(one, URLPattern)]
    listed = {address.replace("{id}", str(uuid.UUID(int=0))).partition("?")[0].lstrip("/") for _, address, _ in MATRIX}
    missing = [str(one.pattern) for one in patterns if not any(one.resolve(address) for address in listed)]
    assert missing == []


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("/", "GET, HEAD"),
        ("/exports/", "GET, HEAD"),
        ("/exports/new/", "GET, HEAD"),
        ("/exports/new/orders/", "GET, HEAD, POST"),
        ("/exports/{id}/", "GET, HEAD"),
        ("/exports/{id}/download", "GET, HEAD"),
        ("/exports/{id}/receipt.json", "GET, HEAD"),
        ("/exports/{id}/cancel", "POST"),
        ("/exports/{id}/again", "POST"),
        ("/exports/{id}/remove", "POST"),
        ("/logout/", "POST, OPTIONS"),
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
    ],
)
def test_wrong_method_is_refused_and_changes_nothing(
    alices: Client, alice: User, caplog: pytest.LogCaptureFixture, address: str, allowed: str
) -> None:
    export = in_state(alice, ExportState.QUEUED)
    before = everything()
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - set(allowed.split(", ")):
        response = answer(alices, method, address.format(id=export.pk))
        assert (method, response.status_code, response["Allow"]) == (method, 405, allowed)
    assert everything() == before


@pytest.mark.parametrize("id", [str(uuid.UUID(int=0)), "1", "not-an-id", "../../etc/passwd"])
def test_unknown_export_is_not_there(alices: Client, id: str) -> None:
    for method, page in (
        ("GET", ""),
        ("GET", "download"),
        ("GET", "receipt.json"),
        ("POST", "cancel"),
        ("POST", "again"),
        ("POST", "remove"),
    ):
        assert answer(alices, method, f"/exports/{id}/{page}").status_code == 404


def test_download_is_noted_under_the_name_of_who_fetched_it(cast: Cast) -> None:
    export = export_of(cast, "owner")
    for name in ("watcher", "owner"):
        browser(cast[name]).get(f"/exports/{export.pk}/download").getvalue()
    assert [event.text for event in Event.objects.filter(kind="downloaded").order_by("pk")] == [
        "Downloaded by watcher", "Downloaded by alice",
    ]  # fmt: skip


def test_operator_who_cancels_is_named_and_led_back_to_the_export(cast: Cast, alice: User) -> None:
    export = in_state(alice, ExportState.RUNNING)
    response = browser(cast["operator"]).post(f"/exports/{export.pk}/cancel")
    assert response["Location"] == f"/exports/{export.pk}/"
    event = export.events.get(kind="cancelled")
    assert (event.actor, event.text) == (cast["operator"], "Cancelled by operator")


def test_page_that_polls_is_told_to_load_anew_when_the_session_is_over(client: Client, alice: User) -> None:
    export = in_state(alice, ExportState.RUNNING)
    for address in ("/exports/", f"/exports/{export.pk}/"):
        response = client.get(address, headers={"HX-Request": "true"})
        assert (response.status_code, response["HX-Refresh"], response.content) == (204, "true", b"")
        client.force_login(alice)
        assert client.get(address, headers={"HX-Request": "true"}).status_code == 200
        client.logout()


def test_disabled_person_cannot_sign_in_and_is_told_no_more_than_others(client: Client, alice: User) -> None:
    def told(**typed: str) -> str:
        response = client.post("/login/", typed)
        assert response.status_code == 200
        return response.content.decode().split("<form")[1]

    wrong = told(username="alice", password="wrong")
    User.objects.update(is_active=False)
    disabled = told(username="alice", password="alice-password")

    def without_token(form: str) -> str:
        return form.split("csrfmiddlewaretoken")[0] + form.split("csrfmiddlewaretoken")[1].partition(">")[2]

    assert without_token(disabled) == without_token(wrong)
    User.objects.update(is_active=True)
    assert client.post("/login/", {"username": "alice", "password": "alice-password"}).status_code == 302


def test_sign_in_leads_to_no_other_site(client: Client, alice: User) -> None:
    typed = {"username": "alice", "password": "alice-password", "next": "https://evil.example.com/"}
    assert client.post("/login/", typed)["Location"] == "/"
