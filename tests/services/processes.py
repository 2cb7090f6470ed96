"""Starts the application's own processes for a test and makes sure that none of them outlives it."""

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .base import die_with_parent, kill_session, process_ids, send_signal, session_members, wait_until

_MARK = "EXPORTAPP_TEST_PROCESSES"


class Processes:
    """Each process leads its own session and has a log file. `env` is laid over the tests' environment."""

    def __init__(self, env: Mapping[str, str], cwd: Path | str, grace: float = 15) -> None:
        self.cwd = Path(cwd)
        self.grace = grace
        # A daemon can leave its session, but not the environment it was started with.
        self._mark = secrets.token_hex(8)
        self._env = os.environ | env | {_MARK: self._mark, "PYTHONUNBUFFERED": "1"}
        self._temporary = tempfile.TemporaryDirectory(prefix="exportapp-processes-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, argv: Sequence[str | Path], **env: str) -> subprocess.Popen[bytes]:
        """Start a process, with `env` of its own. A name may be used again once its process has ended; its log goes on."""
        if name in self._running and self._running[name].poll() is None:
            raise RuntimeError(f"{name} is running already")
        with self._log_file(name).open("ab") as log:
            process = subprocess.Popen(
                [*die_with_parent("TERM"), *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env | env,
                cwd=self.cwd,
                start_new_session=True,
            )
        self._running[name] = process
        self._started.append(process)
        return process

    def term(self, name: str) -> None:
        """SIGTERM to the main process alone, as a supervisor does; does not wait."""
        self._running[name].terminate()

    def pid(self, name: str) -> int:
        """Of the main process that was started last under this name; it also names the session."""
        return self._running[name].pid

    def ended(self, name: str) -> bool:
        return self._running[name].poll() is not None

    def kill(self, name: str, main_only: bool = False) -> None:
        """SIGKILL to the process and all its children (power cut), or to the main one alone (OOM killer)."""
        process = self._running[name]
        if main_only:
            process.kill()
        else:
            kill_session(process.pid)
            self._started.remove(process)
        process.wait()

    def log(self, name: str) -> str:
        file = self._log_file(name)
        return file.read_text(errors="replace") if file.exists() else ""

    def _log_file(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def stop_all(self) -> None:
        """SIGTERM to every main process, after the grace period SIGKILL to all left of their sessions."""
        for process in reversed(self._started):
            process.terminate()
        deadline = time.monotonic() + self.grace
        for process in self._started:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"{process.args!r} ignored SIGTERM for {self.grace:g} s", flush=True)
        for process in self._started:
            kill_session(process.pid)
            process.wait()

    def survivors(self) -> list[int]:
        """The living processes that were started here, or by those, whatever session they moved to."""
        sessions = {pid for process in self._started for pid in session_members(process.pid)}
        return sorted(sessions | {pid for pid in process_ids() if self._is_ours(pid)})

    def _is_ours(self, pid: int) -> bool:
        try:
            return f"{_MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it ended, or belongs to another user
            return False

    def _end_survivors(self) -> list[str]:
        survivors = self.survivors()
        described = [f"{pid} {_command_of(pid)}" for pid in survivors]
        for pid in survivors:
            send_signal(pid, signal.SIGKILL)
        wait_until(lambda: not self.survivors(), 10, f"the end of {described}")
        return described

    def _print_logs(self) -> None:
        for file in sorted(self._folder.glob("*.log")):
            print(f"--- end of {file.name}\n{file.read_text(errors='replace')[-4000:]}", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop_all()
            if error is not None:
                self._print_logs()  # else lost with the folder, just when they are needed
        finally:
            survivors = self._end_survivors()
            self._temporary.cleanup()
        assert not survivors, f"processes left their group and were still alive: {survivors}"


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(ended)"
