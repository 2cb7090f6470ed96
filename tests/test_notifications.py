"""The mails, on a real SMTP server: two forms of the same few sentences, a link, no data, and no way into the headers."""

from __future__ import annotations

from datetime import timedelta
from email.message import EmailMessage
from email.utils import getaddresses

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from exportapp import lifecycle, notifications
from exportapp.engine.errors import ExportError
from exportapp.environment import mail
from exportapp.models import Export, ExportState, Step, StepKind, StepState
from exportapp.notifications import export_failed, export_ready
from tests.pages import Element, read
from tests.scenes import HOSTILE, held, in_state
from tests.services import MailServer
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


def test_mail_holds_no_data_and_no_file(alice: User, mailserver: MailServer) -> None:
    export_ready(ready(alice))
    message = received(mailserver)
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative", "text/plain", "text/html",
    ]  # fmt: skip
    assert "opensesame" not in message.as_string()


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
@pytest.mark.parametrize("state", [ExportState.READY, ExportState.FAILED])
def test_hostile_name_splits_no_header_and_is_text_in_the_mail(
    alice: User, mailserver: MailServer, name: str, state: str
) -> None:
    export = in_state(alice, state, name=name)
    (export_ready if state == ExportState.READY else export_failed)(export)
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
