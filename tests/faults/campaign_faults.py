"""The faults of a campaign, and the supervisor that starts again what died, as systemd would.

Everything that is started is started by the thread that makes this: processes die with the thread that started them.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.proxy import Proxy
from tests.journeys.desk import Desk
from tests.services import MailServer, Server
from tests.services.base import kill_session, process_ids, send_signal, session_members, session_of

RESTART_SECONDS = 1.0  # systemd's RestartSec
AT_WORK = 0.7  # of the strikes at a worker's child
DEPLOY_SECONDS = 60.0  # ... and TimeoutStopSec


@dataclass
class Fault:
    """What was done when, and to which of the worker processes; none named means to all."""

    at: float
    kind: str
    pids: tuple[int, ...] = ()


class Supervisor:
    """Starts processes, and again when they have ended."""

    def __init__(self, desk: Desk, starters: dict[str, Callable[[], None]]) -> None:
        self.names = list(starters)
        self.overdue = 0  # deploys that had to be ended by force
        self._desk, self._starters = desk, starters
        self._ended: dict[str, float] = {}
        self._to_end: dict[str, float] = {}

    def start(self) -> None:
        for start in self._starters.values():
            start()

    def tend(self) -> None:
        """To be called often."""
        for name in self.names:
            self._tend(name, time.monotonic())

    def _tend(self, name: str, at: float) -> None:
        processes = self._desk.processes
        if not processes.ended(name):
            if at > self._to_end.get(name, at):
                self.overdue += 1
                kill_session(processes.pid(name))
        elif at > self._ended.setdefault(name, at) + RESTART_SECONDS:
            kill_session(processes.pid(name))  # KillMode=mixed: what is left of it goes first
            self._starters[name]()
            del self._ended[name]
            self._to_end.pop(name, None)

    def deploy(self, name: str) -> None:
        self._desk.processes.term(name)
        self._to_end[name] = time.monotonic() + DEPLOY_SECONDS

    def living(self, *kinds: str) -> list[str]:
        return [name for name in self.names if name.startswith(kinds) and not self._desk.processes.ended(name)]

    def pid(self, name: str) -> int:
        return self._desk.processes.pid(name)

    def children(self, name: str) -> list[int]:
        main = self.pid(name)
        return [pid for pid in session_members(main) if parent_of(pid) == main]

    def unowned(self) -> list[int]:
        """Processes of the desk's that belong to none that should be there."""
        owners = {self.pid(name) for name in self.names}
        # One that has ended since has no session.
        return [pid for pid in self._desk.processes.survivors() if session_of(pid) not in {*owners, None}]


def parent_of(pid: int) -> int | None:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


@dataclass
class Chaos:
    """Strikes at moments and in places that a seed decides; heal() undoes what is under way."""

    seed: int
    pause: float
    lease: float
    supervisor: Supervisor
    proxies: dict[str, Proxy]
    servers: dict[str, Server]
    mail: MailServer
    starting: Executor
    working: Callable[[], list[int]]  # the processes that run a step, as far as is known
    done: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.seed} faults")
        self._next = time.monotonic() + self.pause
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._down: dict[str, Future[None]] = {}
        self._frozen: set[int] = set()
        self._menu: list[tuple[Callable[[], None], int]] = [
            (self._kill_child, 7), (self._kill_worker, 3), (self._kill_dispatcher, 2), (self._kill_web, 3),
            (self._freeze_child, 4), (lambda: self._freeze_main("worker"), 1), (lambda: self._freeze_main("dispatcher"), 1),
            (self._freeze_web, 2), (self._crash, 4), (self._deploy, 3), (self._cut, 8), (self._hush, 4), (self._slow, 4),
            (self._refuse_mail, 3), (self._hang_mail, 3),
        ]  # fmt: skip
        self._first = [strike for strike, _ in self._menu]  # each once, so that no run is harmless
        self._dice.shuffle(self._first)

    def tend(self) -> None:
        """To be called often: does what is due."""
        at = time.monotonic()
        due = [one for one in self._later if one[0] <= at]
        self._later = [one for one in self._later if one[0] > at]
        for _, undo in due:
            undo()
        if at >= self._next:
            self._next = at + self._dice.expovariate(1 / self.pause)
            strikes, weights = zip(*self._menu, strict=True)
            (self._first.pop() if self._first else self._dice.choices(strikes, weights)[0])()

    def heal(self) -> None:
        """No more faults. What is half-open stays so: the desk has to notice."""
        for _, undo in self._later:
            undo()
        self._later = []
        for server in self._down.values():
            server.result()

    def _strike(self, kind: str, counted: str, *pids: int, times: int = 1) -> None:
        self.done.append(Fault(time.time(), kind, pids))
        self.counts[counted] += times
        print(f"  {kind} {' '.join(map(str, pids))}".rstrip(), flush=True)

    def _after(self, seconds: float, undo: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    # --- processes ---------------------------------------------------------------------------------------------------

    def _one(self, kind: str) -> str | None:
        living = self.supervisor.living(kind)
        return self._dice.choice(living) if living else None

    def _child(self, kind: str) -> int | None:
        name = self._one(kind)
        children = sorted(set(self.supervisor.children(name)) - self._frozen) if name else []
        # Mostly in the middle of something: nobody learns much from the death of one that waits.
        at_work = [child for child in children if child in self.working()]
        if at_work and self._dice.random() < AT_WORK:
            children = at_work
        return self._dice.choice(children) if children else None

    def _kill_child(self) -> None:
        if child := self._child("worker"):
            self._strike("kill a worker's child", "kills", child)
            send_signal(child, signal.SIGKILL)

    def _kill_worker(self) -> None:
        if name := self._one("worker"):
            # Its children live on until the supervisor is there.
            self._strike(f"kill {name}", "kills", *self.supervisor.children(name), self.supervisor.pid(name))
            send_signal(self.supervisor.pid(name), signal.SIGKILL)

    def _kill_dispatcher(self) -> None:
        if name := self._one("dispatcher"):
            self._strike(f"kill {name}", "kills", 0)
            send_signal(self.supervisor.pid(name), signal.SIGKILL)

    def _kill_web(self) -> None:
        main = self._one("web")
        child = self._child("web")
        if main and child:
            victim = self._dice.choice((self.supervisor.pid(main), child))
            self._strike("kill web" if victim != child else "kill web's child", "kills", 0)
            send_signal(victim, signal.SIGKILL)

    def _freeze_child(self) -> None:
        if child := self._child("worker"):
            self._freeze("a worker's child", child, child)

    def _freeze_main(self, kind: str) -> None:
        name = self._one(kind)
        if name and (main := self.supervisor.pid(name)) not in self._frozen:
            self._freeze(name, main, 0)  # a worker's children go on meanwhile

    def _freeze_web(self) -> None:
        if child := self._child("web"):
            self._freeze("web's child", child, 0)

    def _freeze(self, what: str, victim: int, struck: int) -> None:
        self._strike(f"freeze {what}", "freezes", struck)
        send_signal(victim, signal.SIGSTOP)
        self._frozen.add(victim)
        self._after(self.lease + self._dice.uniform(1, 6), lambda: self._thaw(victim))

    def _thaw(self, victim: int) -> None:
        self._frozen.discard(victim)
        if victim in process_ids():
            send_signal(victim, signal.SIGCONT)

    def _deploy(self) -> None:
        if name := self._one("worker"):
            self._strike(f"deploy {name}", "restarts", *self.supervisor.children(name), self.supervisor.pid(name))
            self.supervisor.deploy(name)

    # --- servers -----------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        up = [name for name in self.servers if name not in self._down or self._is_up_again(name)]
        if up:
            name = self._dice.choice(up)
            self._strike(f"crash {name}", "restarts", *([0] if name == "broker" else []))
            self._down[name] = self.starting.submit(crash, self.servers[name], self._dice.uniform(0, 4))

    def _is_up_again(self, name: str) -> bool:
        return self._down[name].done() and self._down[name].result() is None  # or raises why not

    def _place(self) -> tuple[str, list[int]]:
        # Mostly nobody reads the source: what strikes there strikes when somebody does.
        busy = [name for name, proxy in self.proxies.items() if proxy.busy]
        name = self._dice.choice(busy or list(self.proxies))
        return name, [0] if name == "broker" else []

    def _cut(self) -> None:
        name, pids = self._place()
        cut = self.proxies[name].cut(self._dice, self._dice.choice((0.01, 0.5, 1)))
        self._strike(f"cut {cut} connections to the {name}", "cuts", *pids, times=cut)

    def _hush(self) -> None:
        name, pids = self._place()
        hushed = self.proxies[name].hush(self._dice, self._dice.choice((0.01, 0.3)))
        self._strike(f"half-open {hushed} connections to the {name}", "cuts", *pids, times=hushed)

    def _slow(self) -> None:
        name, pids = self._place()
        proxy = self.proxies[name]
        self._strike(f"slow {name}", "slow", *pids)
        # S3 answers late when it is in trouble, and later than a lease lasts.
        proxy.delay = self._dice.uniform(0.5, 8) if name == "store" else self._dice.uniform(0.02, 0.2)
        self._after(self._dice.uniform(1, 5), lambda: setattr(proxy, "delay", 0.0))

    # --- mail --------------------------------------------------------------------------------------------------------

    def _refuse_mail(self) -> None:
        self._strike("mail answers 451", "mail", 0)
        self.mail.data_answer = "451 4.3.0 later"
        self._after(self._dice.uniform(1, 8), lambda: setattr(self.mail, "data_answer", None))

    def _hang_mail(self) -> None:
        self._strike("mail hangs", "mail", 0)
        self.mail.pause = self._dice.uniform(2, 10)
        self._after(self._dice.uniform(2, 8), lambda: setattr(self.mail, "pause", 0.0))


def crash(server: Server, seconds: float) -> None:
    """SIGKILL for a server, and a new start some time after."""
    server.kill()
    time.sleep(seconds)
    server.start()
