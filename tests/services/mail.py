"""A private SMTP server that keeps every message it accepts and refuses on request, and one that never comes to an end."""

import asyncio
import contextlib
import socket
import ssl
import threading
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


class Tarpit:
    """A mail server in a thread that answers as others do until `stuck` ("banner", "EHLO", "MAIL", "DATA", ".", "QUIT"),
    and there goes on and on with lines that announce another, each long before a read would be given up. `context` is
    what it speaks TLS with, from the first byte ("smtps") or when asked ("smtp+tls"). `taken` counts whole messages,
    and `hung_up` is set when the client has gone."""

    _ANSWERS = {"EHLO": "250-tarpit\r\n250 STARTTLS", "STARTTLS": "220 go on", "MAIL": "250 ok", "RCPT": "250 ok",
                "DATA": "354 go on", ".": "250 ok", "QUIT": "221 bye"}  # fmt: skip

    def __init__(self, stuck: str, scheme: str = "smtp", context: ssl.SSLContext | None = None) -> None:
        self._stuck, self._scheme, self._context = stuck, scheme, context
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self.taken = 0
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://{HOST}:{self.port}"

    def _serve(self) -> None:
        with self._listening, contextlib.suppress(OSError):
            client, _ = self._listening.accept()
            with self._behind_tls(client) if self._scheme == "smtps" else client as client:
                self._answer(client, "banner", "220 welcome")
                self._talk(client)
        self.hung_up.set()

    def _behind_tls(self, client: socket.socket) -> socket.socket:
        assert self._context
        return self._context.wrap_socket(client, server_side=True)

    def _talk(self, client: socket.socket) -> None:
        for line in client.makefile("r"):
            verb = line.split(maxsplit=1)[0].upper() if line.strip() else ""
            self.taken += verb == "."
            if verb in self._ANSWERS:  # all else is the message
                self._answer(client, verb, self._ANSWERS[verb])
            if verb == "STARTTLS":
                with self._behind_tls(client) as secret:
                    return self._talk(secret)

    def _answer(self, client: socket.socket, verb: str, answer: str) -> None:
        while verb == self._stuck:
            client.sendall(f"{answer[:3]}-and\r\n".encode())
            time.sleep(0.05)
        client.sendall(f"{answer}\r\n".encode())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.hung_up.is_set():
            with contextlib.suppress(OSError):  # wakes a thread that nobody ever called
                socket.create_connection((HOST, self.port), 1).close()
        self._thread.join(10)
