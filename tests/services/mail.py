"""A private SMTP server that keeps every message it accepts and refuses on request."""

import asyncio
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from .base import HOST, free_port, wait_until


class MailServer:
    """Runs in a thread. Set `rcpt_answer` or `data_answer` ("451 4.3.0 later", "550 5.1.1 unknown") to refuse
    recipients or whole messages, and None to accept again; `pause` is how many seconds it thinks before it answers."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[EmailMessage] = []
        self.refused = 0
        self.rcpt_answer: str | None = None
        self.data_answer: str | None = None
        self.pause = 0.0
        self._controller: Controller | None = None

    @property
    def url(self) -> str:
        return f"smtp://{HOST}:{self.port}"

    def start(self) -> Self:
        began = time.monotonic()
        # A new one each time: a stopped controller does not start again.
        self._controller = Controller(_Handler(self), hostname=HOST, port=self.port)
        try:
            self._controller.start()
        except BaseException:
            self.stop()
            raise
        print(f"mail on {HOST}:{self.port}, {time.monotonic() - began:.1f} s", flush=True)
        return self

    def stop(self) -> None:
        """From now on connections are refused; messages stay, and start() opens the same port again."""
        if self._controller is not None:
            self._controller.stop(no_assert=True)
            self._controller = None

    def wait_for(self, predicate: Callable[[EmailMessage], object], timeout: float = 10) -> EmailMessage:
        """The first message, past or to come, that the predicate is true of."""

        def first() -> EmailMessage | None:
            return next((message for message in list(self.messages) if predicate(message)), None)

        found = wait_until(first, timeout, f"a message (before the wait there were {len(self.messages)})")
        assert found is not None  # wait_until returns true answers alone
        return found

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Handler:
    """aiosmtpd finds these methods by their names."""

    def __init__(self, owner: MailServer) -> None:
        self._owner = owner

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._owner.rcpt_answer:
            self._owner.refused += 1
            return self._owner.rcpt_answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self._owner.pause)  # who hangs up meanwhile has sent nothing
        if self._owner.data_answer:
            self._owner.refused += 1
            return self._owner.data_answer
        # Lines end with CRLF on the wire and with LF in a mailbox.
        content = (envelope.original_content or b"").replace(b"\r\n", b"\n")
        self._owner.messages.append(message_from_bytes(content, policy=policy.default))
        return "250 OK"
