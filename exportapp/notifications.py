"""The e-mails: one function each. They hold a link to the export's page and never data or a file."""

from __future__ import annotations

import smtplib

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string

from exportapp.engine.errors import ExportError
from exportapp.models import Export


def export_ready(export: Export) -> None:
    """Tells the owner that the file can be fetched. Raises ExportError."""
    _send(export, "export-ready")


def export_failed(export: Export) -> None:
    """Tells the owner why there is no file. Raises ExportError."""
    _send(export, "export-failed")


def _send(export: Export, template: str) -> None:
    context = {"export": export, "url": settings.BASE_URL + export.get_absolute_url()}
    subject = render_to_string(f"emails/{template}-subject.txt", context)
    message = EmailMultiAlternatives(
        subject=" ".join(subject.split()),
        body=render_to_string(f"emails/{template}.txt", context),
        to=[export.owner.email],
        # One outcome, one id: a mail system drops the second copy that a kill between sending and recording makes.
        headers={"Message-ID": f"<{export.pk}.{template}@exportapp>", "Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(render_to_string(f"emails/{template}.html", context), "text/html")
    try:
        message.send()
    except (smtplib.SMTPException, OSError) as error:
        raise ExportError("The mail server did not take the mail.",
                          permanent=_for_good(error), detail=f"{type(error).__name__}: {error}") from error  # fmt: skip


def _for_good(error: Exception) -> bool:
    """Whether the server refused this very mail: codes from 500 on are not to be tried again (RFC 5321, 4.2.1)."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500
