"""What all private servers share: free ports, waiting, and a server process from its start to its removal."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
_given_ports: set[int] = set()
# pytest-xdist names its processes gw0, gw1, ...; each takes ports of its own.
SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def free_port() -> int:
    """A TCP port nobody listens on, never the same one twice in this process nor in another of the same test run."""
    # Below 32768: the kernel takes ports of outgoing connections from above, so none of them can sit on the
    # port between this check and the server's start, nor while a server is down for a restart.
    for _ in range(1000):
        port = random.randrange(20_000 + SHARE, 32_000, SHARES)
        if port not in _given_ports and _is_free(port):
            _given_ports.add(port)
            return port
    raise RuntimeError("no free TCP port between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def wait_until(predicate: Callable[[], T], timeout: float, what: str, interval: float = 0.05) -> T:
    """The predicate's first true answer; after `timeout` seconds an AssertionError naming `what`."""
    deadline = time.monotonic() + timeout
    while True:
        if answer := predicate():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(interval)


def find_program(name: str, debian_package: str, folders: Sequence[str] = ("/usr/sbin",)) -> str:
    """The path of a program, searched in PATH and in `folders` (a plain user's PATH lacks /usr/sbin)."""
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        raise RuntimeError(
            f"{name} is missing: install the Debian package {debian_package} (scripts/install-test-services does)"
        )
    return path


def python_script(name: str, python_package: str) -> str:
    """The path of a program that a Python package put beside the interpreter."""
    path = shutil.which(name, path=sysconfig.get_path("scripts"))
    if path is None:
        raise RuntimeError(f"{name} is missing: install the Python package {python_package} (requirements-dev.txt)")
    return path


def die_with_parent(signal_name: str) -> list[str]:
    """A command prefix: the kernel signals the process when the thread that started it ends.

    So nothing stays behind even when the test run is ended by SIGKILL. Start servers from the main thread.
    """
    return [find_program("setpriv", "util-linux"), "--pdeathsig", signal_name, "--"]


def session_members(session: int) -> list[int]:
    """The living processes (zombies are dead) of a session, which is named by its first process's id."""
    return [pid for pid in process_ids() if session_of(pid) == session]


def process_ids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def session_of(pid: int) -> int | None:
    """The session of a living process, None for one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
    return None if state in "ZX" else int(session)


def send_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may end by itself in between
        os.kill(pid, number)


def kill_session(session: int, timeout: float = 10) -> None:
    """SIGKILL every process of a session and wait until they are gone."""

    def gone() -> bool:
        # Signalled again each time: a process may have forked while the list was read.
        members = session_members(session)
        for pid in members:
            send_signal(pid, signal.SIGKILL)
        return not members

    wait_until(gone, timeout, f"the processes of session {session} to end", interval=0.01)


class Server:
    """One server process with a temporary folder; a subclass says how to prepare, start and probe it.

    stop(), kill() and start() keep data and port. Leaving the `with` block (or close()) removes the folder.
    """

    name: ClassVar[str]
    start_timeout: ClassVar[float] = 60
    stop_timeout: ClassVar[float] = 30
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self._temporary = tempfile.TemporaryDirectory(prefix=f"exportapp-{self.name}-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.log_file = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    def _prepare(self) -> None:
        """Done once, before the first start."""

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str] | None:
        return None  # as the tests' own

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _after_first_start(self) -> None:
        """Done once, when the server answers for the first time."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        began = time.monotonic()
        try:
            first = not self._prepared
            if first:
                self._prepare()
            self._spawn()
            self._wait_ready()
            if first:
                self._after_first_start()
            self._prepared = True
        except BaseException:
            self.kill()
            raise
        print(f"{self.name} on {HOST}:{self.port}, {time.monotonic() - began:.1f} s", flush=True)
        return self

    def _spawn(self) -> None:
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*die_with_parent("KILL"), *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.folder,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        def ready_or_ended() -> bool:
            return not self.running or self._is_ready()

        try:
            wait_until(ready_or_ended, self.start_timeout, f"{self.name} on port {self.port}")
        except AssertionError as error:
            raise RuntimeError(f"{error}\n{self.log()}") from None
        if not self.running:
            raise RuntimeError(f"{self.name} ended while starting\n{self.log()}")

    def log(self) -> str:
        """The end of what the server wrote since its last start."""
        return self.log_file.read_text(errors="replace")[-4000:] if self.log_file.exists() else ""

    def stop(self) -> None:
        """Ask the server to end, and make it end when it does not."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                print(f"{self.name} ignored {self.stop_signal.name} for {self.stop_timeout:g} s", flush=True)
            self.kill()

    def kill(self) -> None:
        """SIGKILL for the server and all processes it started."""
        if self._process is not None:
            kill_session(self._process.pid)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        try:
            return self if self.running else self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def accepts_connections(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
