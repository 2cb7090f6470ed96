"""The proxy does to connections what campaigns believe that it does."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.services import free_port
from tests.services.base import HOST

DICE = random.Random(1)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
            except OSError:
                return

    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def reached(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection((HOST, proxy.port), timeout=5)
    connection.sendall(b"hello")
    assert connection.recv(5) == b"hello"
    return connection


def test_what_is_sent_arrives(echo: int) -> None:
    with Proxy(echo) as proxy, reached(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(bytes(3 << 20),), daemon=True).start()
        left = 3 << 20
        while left:
            left -= len(connection.recv(left))


def test_a_cut_connection_is_reset_and_the_next_one_works(echo: int) -> None:
    with Proxy(echo) as proxy, reached(proxy) as one:
        assert proxy.busy
        assert proxy.cut(DICE, 1) == 1
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        reached(proxy).close()


def test_a_half_open_connection_says_nothing_any_more_and_does_not_end(echo: int) -> None:
    with Proxy(echo) as proxy, reached(proxy) as one, reached(proxy) as other:
        assert proxy.hush(DICE, 0.5) == 1
        silent = 0
        for connection in (one, other):
            connection.settimeout(0.5)
            connection.sendall(b"still there?")
            try:
                assert connection.recv(20)
            except TimeoutError:
                silent += 1
        assert silent == 1
        assert proxy.cut(DICE, 1) == 1  # the other: what is half-open stays so


def test_it_is_as_slow_as_it_is_told(echo: int) -> None:
    with Proxy(echo, pace=1 << 20) as proxy, reached(proxy) as connection:
        proxy.delay = 0.2
        began = time.monotonic()
        connection.sendall(b"x")
        connection.recv(1)
        assert time.monotonic() - began > 0.4


def test_a_server_that_is_down_is_a_connection_that_ends() -> None:
    with Proxy(free_port()) as proxy:
        connection = socket.create_connection((HOST, proxy.port), timeout=5)
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        finally:
            connection.close()
