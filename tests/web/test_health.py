"""What a load balancer asks: whether this process answers, and whether it can work."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test import Client

from exportapp.models import Gate


def refuse(error: Exception) -> Any:
    """A database that answers every question with an error."""

    def answer(*_: Any) -> NoReturn:
        raise error

    return connection.execute_wrapper(answer)


def test_process_that_answers_is_healthy_whatever_the_database_does(client: Client) -> None:
    with refuse(OperationalError(2006, "gone")):
        response = client.get("/healthz")
    assert (response.status_code, response.content, response["Content-Type"]) == (200, b"ok\n", "text/plain")


def test_process_with_a_database_is_ready(client: Client) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"database": "ok"})


@pytest.mark.parametrize("error", [OperationalError(2002, "opensesame"), InterfaceError("opensesame")])
def test_process_without_a_database_is_not_ready_and_tells_no_details(client: Client, error: Exception) -> None:
    with refuse(error):
        response = client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"database": "does not answer"})


def test_database_without_its_gate_is_not_ready(client: Client) -> None:
    Gate.objects.all().delete()
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"database": "is not set up: run manage.py migrate"})


def test_answers_are_never_cached_and_set_no_cookie(client: Client) -> None:
    for address in ("/healthz", "/readyz"):
        response = client.get(address)
        assert "no-store" in response["Cache-Control"]
        assert not response.cookies
