"""A TCP proxy of our own: it stands before one server, and is slow, cuts connections or lets them fall silent."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.services import free_port
from tests.services.base import HOST

T = TypeVar("T")

BLOCK = 64 << 10
_RESET = struct.pack("ii", 1, 0)  # closed without lingering, a connection is reset


class Connection:
    """A client's connection and ours to the server behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self._hearing = asyncio.Event()
        self._hearing.set()

    @property
    def deaf(self) -> bool:
        return not self._hearing.is_set()

    def hush(self) -> None:
        """Half-open from now on: nothing passes any more, also no end of either side, as when a firewall forgot it."""
        self._hearing.clear()

    async def heard(self) -> None:
        await self._hearing.wait()

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


class Proxy:
    """Runs in a thread. `pace` is how many bytes a second a connection gets from the server, 0 for as many as come;
    `delay` is how many seconds every block waits, in both directions."""

    def __init__(self, target: int, pace: int = 0) -> None:
        self.port = free_port()
        self.delay = 0.0
        self._target, self._pace = target, pace
        self._connections: set[Connection] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy of {target}", daemon=True)

    def through(self, url: str) -> str:
        """The same address by way of this proxy."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}").geturl()

    @property
    def busy(self) -> bool:
        """Whether there is a connection that could be struck."""
        return any(not one.deaf for one in list(self._connections))

    def cut(self, dice: random.Random, share: float) -> int:
        """Resets about this share of the connections, one at least if there is one. Returns how many."""
        return self._now(self._strike(dice, share, Connection.cut))

    def hush(self, dice: random.Random, share: float) -> int:
        """Leaves about this share of the connections half-open for ever. Returns how many."""
        return self._now(self._strike(dice, share, Connection.hush))

    async def _strike(self, dice: random.Random, share: float, blow: Any) -> int:
        living = [one for one in self._connections if not one.deaf]
        struck = dice.sample(living, max(1, round(len(living) * share))) if living else []
        for connection in struck:
            blow(connection)
        return len(struck)

    async def _carry(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_reader, server = await asyncio.open_connection(HOST, self._target)
        except OSError:  # the server is down
            client.transport.abort()
            return
        connection = Connection(client, server)
        self._connections.add(connection)
        self._pump(connection, client_reader, server, 0)
        self._pump(connection, server_reader, client, self._pace)

    def _pump(self, connection: Connection, source: asyncio.StreamReader, to: asyncio.StreamWriter, pace: int) -> None:
        task = self._loop.create_task(self._pumped(connection, source, to, pace))
        self._pumps.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._pumps.discard)

    async def _pumped(
        self, connection: Connection, source: asyncio.StreamReader, to: asyncio.StreamWriter, pace: int
    ) -> None:
        with suppress(OSError):
            while data := await source.read(BLOCK):
                await asyncio.sleep(self.delay + (len(data) / pace if pace else 0))
                await connection.heard()
                to.write(data)
                await to.drain()
        await connection.heard()  # the end does not pass either
        connection.cut()
        self._connections.discard(connection)

    def _now(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _end(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._now(asyncio.start_server(self._carry, HOST, self.port))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._now(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
