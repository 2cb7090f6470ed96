"""The mails, on a real SMTP server: two forms of the same few sentences, a link, no data, and no way into the headers."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.mail import EmailMultiAlternatives
from pytest_django import Settings

from exportapp import lifecycle, notifications
from exportapp.engine.errors import ExportError
from exportapp.environment import mail
from exportapp.models import Export, ExportState, Step, StepKind, StepState
from exportapp.notifications import deliver, export_expiring, export_failed, export_ready
from tests.pages import Element, read
from tests.scenes import HOSTILE, held, in_state
from tests.services import MailServer, wait_until
from tests.services.base import HOST
from tests.services.mail import Tarpit
from worker.heart import HEART
from worker.tasks import run

CONTENT = b"id,secret\r\n1,opensesame\r\n"


@pytest.fixture(autouse=True)
def _real_mail(settings: Settings, mailserver: MailServer) -> None:
    for name, value in mail(mailserver.url).items():
        setattr(settings, name, value)
    settings.BASE_URL = "https://exports.example.com"
    settings.DEFAULT_FROM_EMAIL = "The desk <exports@example.com>"


def ready(alice: User, name: str = "January") -> Export:
    return in_state(alice, ExportState.READY, name=name, content=CONTENT)


def received(mailserver: MailServer) -> EmailMessage:
    [message] = mailserver.messages
    return message


def texts(message: EmailMessage) -> tuple[str, Element]:
    """The plain part, and the HTML part as a document."""
    assert message.get_content_type() == "multipart/alternative"
    plain, html = message.iter_parts()
    assert (plain.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return plain.get_content(), read(html.get_content())


def test_ready_mail_has_a_link_to_the_page_in_both_forms(alice: User, mailserver: MailServer) -> None:
    export = ready(alice)
    export_ready(export)
    message = received(mailserver)
    assert message["Subject"] == "Ready: January"
    assert getaddresses([message["To"]]) == [("", "alice@example.com")]
    assert getaddresses([message["From"]]) == [("The desk", "exports@example.com")]
    plain, html = texts(message)
    url = f"https://exports.example.com/exports/{export.pk}/"
    assert url in plain.split()
    assert html.one("a").attributes["href"] == url
    for text in (plain, html.text):
        assert "January" in text
        assert "1 row, 25" in text
        assert f"{export.expires_at:%-d %B %Y, %H:%M} UTC" in text


def expired(alice: User) -> Export:
    return in_state(alice, ExportState.EXPIRED, name="January")


def over_but_not_swept(alice: User) -> Export:
    export = ready(alice)
    Export.objects.filter(pk=export.pk).update(expires_at=lifecycle.now() - timedelta(seconds=1))
    export.refresh_from_db()
    return export


def expired_since_the_claim(alice: User) -> Export:
    export = ready(alice)
    Export.objects.filter(pk=export.pk).update(state=ExportState.EXPIRED)
    return export


@pytest.mark.parametrize("late", [expired, over_but_not_swept, expired_since_the_claim])
def test_mail_that_is_later_than_the_file_says_that_it_is_gone_and_how_to_make_another(
    alice: User, mailserver: MailServer, late: Callable[[User], Export]
) -> None:
    export = late(alice)
    export_ready(export)
    message = received(mailserver)
    assert message["Subject"] == "Ready, and gone by now: January"
    plain, html = texts(message)
    url = f"https://exports.example.com/exports/{export.pk}/"
    assert url in plain.split()
    assert html.one("a").attributes["href"] == url
    for text in (plain, html.text):
        assert f"was ready on {export.finished_at:%-d %B %Y, %H:%M} UTC" in text
        assert f"kept until {export.expires_at:%-d %B %Y, %H:%M} UTC and is gone by now" in text
        assert "Run again" in text
        assert "etch" not in text


def test_step_that_mails_too_late_sends_that_mail(notify: Step, mailserver: MailServer) -> None:
    Export.objects.update(expires_at=lifecycle.now() - timedelta(hours=1))
    [export] = lifecycle.expire_due()
    run(notify)
    assert received(mailserver)["Subject"] == "Ready, and gone by now: Orders"
    assert (Export.objects.get().state, export.events.latest("pk").kind) == (ExportState.EXPIRED, "mailed")


def test_failed_mail_says_why_in_both_forms(alice: User, mailserver: MailServer) -> None:
    export = in_state(alice, ExportState.FAILED, name="January")
    export_failed(export)
    message = received(mailserver)
    assert message["Subject"] == "Not exported: January"
    plain, html = texts(message)
    url = f"https://exports.example.com/exports/{export.pk}/"
    assert url in plain.split()
    assert html.one("a").attributes["href"] == url
    for text in (plain, html.text):
        assert "The table is <gone>." in text
        for way in ("What can be done", "Edit as new", "Run again"):
            assert way in text


def fetched(export: Export, alice: User) -> None:
    lifecycle.note_download(export, alice)


def over(export: Export, alice: User) -> None:
    Export.objects.filter(pk=export.pk).update(expires_at=lifecycle.now() - timedelta(seconds=1))


def expired_meanwhile(export: Export, alice: User) -> None:
    Export.objects.filter(pk=export.pk).update(state=ExportState.EXPIRED)


def test_mail_about_the_last_day_says_until_when_in_both_forms(alice: User, mailserver: MailServer) -> None:
    export = ready(alice)
    assert export_expiring(export)
    message = received(mailserver)
    assert message["Subject"] == "Goes tomorrow: January"
    assert message["Message-ID"] == f"<{export.pk}.export-expiring@exportapp>"
    plain, html = texts(message)
    url = f"https://exports.example.com/exports/{export.pk}/"
    assert url in plain.split()
    assert html.one("a").attributes["href"] == url
    for text in (plain, html.text):
        assert f"removed on {export.expires_at:%-d %B %Y, %H:%M} UTC" in text
        assert "1 row, 25" in text
        assert "Run again" in text


@pytest.mark.parametrize("meanwhile", [fetched, over, expired_meanwhile])
def test_no_mail_about_the_last_day_of_what_was_fetched_or_is_gone(
    alice: User, mailserver: MailServer, meanwhile: Callable[[Export, User], None]
) -> None:
    export = ready(alice)
    meanwhile(export, alice)
    assert not export_expiring(export)
    assert mailserver.messages == []


ALL = {"export-ready": ExportState.READY, "export-expiring": ExportState.READY, "export-failed": ExportState.FAILED,
       "export-gone": ExportState.EXPIRED}  # fmt: skip


@pytest.mark.parametrize("template", ALL)
def test_mail_looks_good_without_asking_anybody(alice: User, mailserver: MailServer, template: str) -> None:
    export = in_state(alice, ALL[template], name="January", zone="Europe/Berlin")
    {"export-failed": export_failed, "export-expiring": export_expiring}.get(template, export_ready)(export)
    source = received(mailserver).get_body(("html",)).get_content()  # type: ignore[union-attr]
    page = read(source)
    assert not re.findall(r"(?:src|url|@import|<link)[=( ]", source)
    assert set(re.findall(r"https?://[^/\s\"<.]+", source)) <= {"https://exports"}
    assert [link.text for link in page.all("a")] == [page.one("a", cls="button").text]
    assert page.one("meta", name="color-scheme").attributes["content"] == "light dark"
    assert "max-width: 600px" in source
    if template != "export-gone":
        facts = " ".join(row.text for row in page.all("td", cls="what"))
        assert facts.startswith("Orders 2026-01-01 to 2026-02-01 (not included), Europe/Berlin CSV")


def test_both_forms_name_no_range_where_there_is_none(alice: User, mailserver: MailServer) -> None:
    export_ready(in_state(alice, ExportState.READY, name="All", dataset="products"))
    plain, html = texts(received(mailserver))
    for text in (plain, html.text):
        assert "not included" not in text


def test_mail_holds_no_data_and_no_file(alice: User, mailserver: MailServer) -> None:
    export_ready(ready(alice))
    message = received(mailserver)
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative", "text/plain", "text/html",
    ]  # fmt: skip
    assert "opensesame" not in message.as_string()


def test_mail_that_an_operator_has_sent_once_more_is_another_one(alice: User, mailserver: MailServer) -> None:
    export = ready(alice)
    export_ready(export)
    export.steps.create(kind=StepKind.NOTIFY, state=StepState.DONE, not_before=lifecycle.now())
    for _ in range(2):  # the second as after a kill
        export_ready(export)
    ids = [message["Message-ID"] for message in mailserver.messages]
    assert ids[0] != ids[1] == ids[2]


def test_same_outcome_has_the_same_id_whoever_sends_it_again(alice: User, mailserver: MailServer) -> None:
    export, other = ready(alice), ready(alice)
    for one in (export, export, other):
        export_ready(one)
    export_failed(export)
    ids = [message["Message-ID"] for message in mailserver.messages]
    assert ids[0] == ids[1] == f"<{export.pk}.export-ready@exportapp>"
    assert len(set(ids)) == 3
    assert {message["Auto-Submitted"] for message in mailserver.messages} == {"auto-generated"}


@pytest.mark.parametrize("name", [*HOSTILE, "a\nBcc: charlie@example.com", "x" * 200, "tab\tand\x0bmore", "ü" * 200])
@pytest.mark.parametrize("state", [ExportState.READY, ExportState.EXPIRED, ExportState.FAILED])
def test_hostile_name_splits_no_header_and_is_text_in_the_mail(
    alice: User, mailserver: MailServer, name: str, state: str
) -> None:
    export = in_state(alice, state, name=name)
    (export_failed if state == ExportState.FAILED else export_ready)(export)
    message = received(mailserver)
    assert sorted(message.keys()) == [
        "Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To",
    ]  # fmt: skip
    assert message["Subject"].partition(": ")[2] == " ".join(name.split())
    plain, html = texts(message)
    assert name.splitlines()[0].strip() in plain
    assert " ".join(name.split()) in html.text
    assert not html.all("script")
    assert not html.all("img")


# --- a server that takes no mail --------------------------------------------------------------------------------------


@pytest.fixture
def notify(alice: User, monkeypatch: pytest.MonkeyPatch) -> Step:
    """The step that mails alice about her file."""
    monkeypatch.setattr(HEART, "start", lambda: None)
    return held(StepKind.NOTIFY, alice)


def refuse_for_now(mailserver: MailServer) -> None:
    mailserver.data_answer = "451 4.3.0 opensesame, try again later"


def refuse_the_recipient_for_now(mailserver: MailServer) -> None:
    mailserver.rcpt_answer = "450 4.2.0 greylisted"


def be_down(mailserver: MailServer) -> None:
    mailserver.stop()


@pytest.mark.parametrize("trouble", [refuse_for_now, refuse_the_recipient_for_now, be_down])
def test_mail_that_was_not_taken_is_tried_again_and_the_file_stays(
    notify: Step, mailserver: MailServer, trouble: object
) -> None:
    trouble(mailserver)  # type: ignore[operator]
    run(notify)
    notify.refresh_from_db()
    export = Export.objects.get()
    assert (export.state, export.error) == (ExportState.READY, "")
    assert (notify.state, notify.attempts) == (StepState.WAITING, 1)
    told = export.events.latest("pk")
    assert told.text.startswith("The mail server did not take the mail. Trying again in ")
    assert "opensesame" not in told.text
    assert any(word in told.detail for word in ("451", "450", "Connection refused"))

    mailserver.data_answer = mailserver.rcpt_answer = None
    if trouble is be_down:
        mailserver.start()
    Step.objects.update(not_before=lifecycle.now())
    again = lifecycle.claim("worker")
    assert again is not None
    run(again)
    assert received(mailserver)["Subject"] == "Ready: Orders"
    assert Export.objects.get().events.latest("pk").kind == "mailed"


def test_mail_is_tried_for_a_day(notify: Step, mailserver: MailServer) -> None:
    mailserver.stop()
    step = notify
    for _ in range(30):  # more often than any other step
        run(step)
        Step.objects.update(not_before=lifecycle.now())
        again = lifecycle.claim("worker")
        assert again is not None
        step = again
    Export.objects.update(finished_at=lifecycle.now() - timedelta(days=1, seconds=1))
    step.refresh_from_db()
    run(step)
    gave_up(step)


@pytest.mark.parametrize("answer", ["rcpt_answer", "data_answer"])
def test_mail_that_the_server_refuses_for_good_is_not_tried_again(
    notify: Step, mailserver: MailServer, answer: str
) -> None:
    setattr(mailserver, answer, "550 5.1.1 unknown")
    run(notify)
    assert "550" in gave_up(notify)
    assert mailserver.refused == 1


def gave_up(step: Step) -> str:
    """What is told to operators of a mail that was given up; its export stays ready."""
    step.refresh_from_db()
    assert (Export.objects.get().state, step.state) == (ExportState.READY, StepState.FAILED)
    told = Export.objects.get().events.latest("pk")
    assert (told.kind, told.text) == ("mail failed", "The mail could not be sent.")
    assert lifecycle.claim("worker") is None
    return told.detail


def test_error_of_the_server_is_for_operators_alone(alice: User, mailserver: MailServer) -> None:
    be_down(mailserver)
    with pytest.raises(ExportError) as error:
        notifications.export_ready(ready(alice))
    assert (error.value.sentence, error.value.permanent) == ("The mail server did not take the mail.", False)
    assert "ConnectionRefusedError" in error.value.detail


# --- a server that never comes to an end ------------------------------------------------------------------------------

SOON = 0.5


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail has half a second in all, and each read thirty, as always."""
    monkeypatch.setattr(notifications, "MAIL_DEADLINE", SOON)


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server on this machine speaks TLS with, so that clients believe it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=mail", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def use(server: Tarpit, settings: Settings) -> None:
    for name, value in mail(server.url).items():
        setattr(settings, name, value)


def send_to(server: Tarpit, alice: User, settings: Settings) -> float:
    """Mails alice through the server. Gives how long it took, in seconds."""
    use(server, settings)
    export = ready(alice)
    began = time.monotonic()
    try:
        export_ready(export)
    finally:
        took = time.monotonic() - began
        assert took < SOON + 5
    return took


@pytest.mark.parametrize("stuck", ["banner", "EHLO", "DATA", "."])
def test_server_that_goes_on_forever_is_given_up_and_the_mail_tried_again(
    alice: User, settings: Settings, soon: None, stuck: str
) -> None:
    with Tarpit(stuck) as server:
        with pytest.raises(ExportError) as error:
            send_to(server, alice, settings)
        assert server.hung_up.wait(5)
    assert (error.value.sentence, error.value.permanent) == ("The mail server did not take the mail.", False)
    assert error.value.detail.startswith("It was not done within 0.5 seconds. SMTPServerDisconnected: ")


@pytest.mark.parametrize(("scheme", "stuck"), [("smtps", "banner"), ("smtps", "EHLO"), ("smtp+tls", "MAIL")])
def test_server_that_goes_on_forever_is_given_up_behind_tls(
    alice: User, settings: Settings, soon: None, certified: ssl.SSLContext, scheme: str, stuck: str
) -> None:
    with Tarpit(stuck, scheme, certified) as server:
        with pytest.raises(ExportError, match="did not take the mail") as error:
            send_to(server, alice, settings)
        assert server.hung_up.wait(5)
    assert error.value.detail.startswith("It was not done within 0.5 seconds. SMTPServerDisconnected: ")


def test_server_that_goes_on_forever_is_given_up_in_a_thread(settings: Settings, soon: None) -> None:
    message = EmailMultiAlternatives("Ready", "It is.", to=["alice@example.com"])
    with Tarpit("EHLO") as server, ThreadPoolExecutor(1) as threads:
        use(server, settings)
        with pytest.raises(ExportError, match="did not take the mail"):
            threads.submit(deliver, message).result(SOON + 5)


def test_mail_that_was_taken_is_sent_however_long_the_farewell(alice: User, settings: Settings, soon: None) -> None:
    with Tarpit("QUIT") as server:
        assert send_to(server, alice, settings) >= SOON
        assert server.hung_up.wait(5)
    assert server.taken == 1


def test_connection_that_is_made_after_the_deadline_is_hung_up(
    alice: User, settings: Settings, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection

    def slowly(*args: Any) -> socket.socket:
        time.sleep(2 * SOON)
        return connect(*args)

    with Tarpit("banner") as server:
        monkeypatch.setattr(socket, "create_connection", slowly)
        with pytest.raises(ExportError, match="did not take the mail"):
            send_to(server, alice, settings)
        monkeypatch.undo()
        assert server.hung_up.wait(5)


def test_mail_in_time_leaves_no_thread_and_no_open_file(alice: User, mailserver: MailServer) -> None:
    export = ready(alice)
    export_ready(export)
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    export_ready(export)
    # The mail server's own of the mail before may have been among them.
    wait_until(lambda: threading.active_count() <= threads and len(os.listdir("/proc/self/fd")) <= files, 20, "its end")
