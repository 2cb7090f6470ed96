"""The e-mails: one function each. They hold a link to a page of the desk, and never data or a file."""

from __future__ import annotations

import os
import smtplib
import socket
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend
from django.db.models.functions import Now
from django.template.loader import render_to_string
from django.utils import timezone

from exportapp import datasets
from exportapp.engine.errors import ExportError
from exportapp.models import Export, ExportState, StepKind, StepState

MAIL_DEADLINE = 60.0  # seconds for a whole mail; EMAIL_TIMEOUT is for one read, and begins anew with each byte


def export_ready(export: Export) -> None:
    """Tells the owner that the file can be fetched, or, in a mail that comes too late, that it is gone and how to make
    another. Raises ExportError."""
    _send(export, "export-ready" if _can_be_fetched(export) else "export-gone")


def export_failed(export: Export) -> None:
    """Tells the owner why there is no file. Raises ExportError."""
    _send(export, "export-failed")


def export_expiring(export: Export) -> bool:
    """Tells the owner that the file goes soon. False, and no mail, when it is gone or was fetched in the meantime.
    Raises ExportError."""
    if not _can_be_fetched(export) or export.events.filter(kind="downloaded").exists():
        return False
    _send(export, "export-expiring")
    return True


def new_password(person: User, path: str) -> EmailMultiAlternatives:
    """The mail with the link to the page where the person chooses a new password, for `deliver`."""
    until = timezone.now() + timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT)
    return _message("new-password", person.email, {"person": person, "url": settings.BASE_URL + path, "until": until})


def _can_be_fetched(export: Export) -> bool:
    # Asked anew, and by the database's clock, which is the one that ends the file.
    return Export.objects.filter(pk=export.pk, state=ExportState.READY, expires_at__gt=Now()).exists()


def _send(export: Export, template: str) -> None:
    recipe, dataset = export.recipe, datasets.thaw(export.definition)
    context = {
        "export": export,
        "url": settings.BASE_URL + export.get_absolute_url(),
        "dataset": dataset,
        "recipe": recipe,
        "ranged": dataset.time_column and (recipe.start or recipe.end),
    }
    message = _message(template, export.owner.email, context)
    # One outcome, one id: a mail system drops the second copy that a kill between sending and recording makes. What an
    # operator has sent once more is another mail.
    before = export.steps.filter(kind=StepKind.NOTIFY, state=StepState.DONE).count()
    again = f".{before}" if before else ""
    message.extra_headers["Message-ID"] = f"<{export.pk}.{template}{again}@exportapp>"
    deliver(message)


def _message(template: str, to: str, context: dict[str, Any]) -> EmailMultiAlternatives:
    context["desk"] = settings.BASE_URL
    subject = render_to_string(f"emails/{template}-subject.txt", context)
    message = EmailMultiAlternatives(
        subject=" ".join(subject.split()),
        body=render_to_string(f"emails/{template}.txt", context).strip() + "\n",
        to=[to],
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(render_to_string(f"emails/{template}.html", context), "text/html")
    return message


def deliver(message: EmailMultiAlternatives) -> None:
    """Hands the message to the mail server, which has MAIL_DEADLINE seconds to take it. Raises ExportError."""
    with _Deadline(MAIL_DEADLINE) as deadline:
        message.connection = _connection(deadline)
        try:
            message.send()
        except (smtplib.SMTPException, OSError) as error:
            raise ExportError("The mail server did not take the mail.", permanent=_for_good(error),
                              detail=f"{deadline}{type(error).__name__}: {error}") from error  # fmt: skip


def _for_good(error: Exception) -> bool:
    """Whether the server refused this very mail: codes from 500 on are not to be tried again (RFC 5321, 4.2.1)."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500


class _Deadline:
    """Hangs up on a mail server when the time is over: a read of one that says a little now and then never ends by itself.

    A timer's thread does it, for that works in every process and thread, as a signal does not.
    """

    def __init__(self, seconds: float) -> None:
        self._over = False
        self._line: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __str__(self) -> str:
        return f"It was not done within {self._timer.interval:g} seconds. " if self._over else ""

    def watch(self, line: socket.socket) -> None:
        """Hangs up on this connection when the time is over, or at once if it is."""
        # A handle of our own: STARTTLS takes the connection out of its first one, in the middle of a talk.
        self._line = socket.socket(fileno=os.dup(line.fileno()))
        if self._over:
            self._hang_up()

    def _end(self) -> None:
        self._over = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line:
            with suppress(OSError):  # the server was quicker
                self._line.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()  # no thread may hold the handle that is closed now: its number is the next file's
        if self._line:
            self._line.close()


def _connection(deadline: _Deadline) -> BaseEmailBackend:
    """The configured way of mails; only that to an SMTP server can take forever."""
    connection = get_connection()
    return _InTime(deadline) if isinstance(connection, EmailBackend) else connection


class _InTime(EmailBackend):
    """Shows the connection to the deadline as soon as it stands, for a server's first word can be the one without end."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        deadline = self._deadline

        class Watched(super().connection_class):  # type: ignore[misc]  # SMTP or SMTP_SSL
            def _get_socket(self, *args: Any) -> socket.socket:
                line: socket.socket = super()._get_socket(*args)
                deadline.watch(line)
                return line

        return Watched
