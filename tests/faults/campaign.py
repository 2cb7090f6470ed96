"""A campaign: people ask a whole desk for exports while faults strike it, and then the oracle holds what they got against
what was asked. `python -m tests.faults.campaign --seed 1 --minutes 10`; docs/faults.md says what is done and why."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from tests.faults import campaign_record
from tests.faults.campaign_desk import (
    DATASETS,
    ENVIRONMENT,
    LEASE,
    PACE,
    PAIRS,
    PEOPLE,
    TABLES,
    Store,
    mail_of,
    making_people,
)
from tests.faults.campaign_faults import Chaos, Supervisor
from tests.faults.campaign_people import Person
from tests.faults.campaign_watch import Watch, held, served
from tests.faults.proxy import Proxy
from tests.journeys.desk import Desk
from tests.oracles.deliveries import Found, Verdict, judge
from tests.oracles.server import Truth, mysql, mysql_truth
from tests.services import MailServer, MariaDB, RabbitMQ, wait_until

T = TypeVar("T")

SETTLE = 240  # seconds; after that, what has not ended is lost


@dataclass(frozen=True)
class Plan:
    """How long and how hard. `pause` is the mean of seconds between two exports of a person, `fault_pause` between two
    faults."""

    seed: int
    seconds: float
    store: str = "local"
    rows: int = 300_000
    pause: float = 2.5
    fault_pause: float = 2.5
    logs: Path | None = None


@dataclass
class Outcome:
    plan: Plan
    verdict: Verdict
    faults: Counter[str]
    recovery: float
    cancelling: float
    idle: float
    overdue: int
    took: float

    @property
    def line(self) -> str:
        verdict, faults = self.verdict, self.faults
        return (
            f"exports={verdict.exports} ready={verdict.ready} kills={faults['kills']} freezes={faults['freezes']} "
            f"restarts={faults['restarts']} cuts={faults['cuts']} cancelled={verdict.cancelled} "
            f"failed={len(verdict.failed)} lost={len(verdict.lost)} doubled={len(verdict.doubled)} bad={len(verdict.bad)} "
            f"orphans={len(verdict.orphans)} mails_doubled={verdict.mails_doubled} slowest_recovery={self.recovery:.1f}s "
            f"slowest_cancel={self.cancelling:.1f}s seed={self.plan.seed}"
        )


class Campaign:
    """All that runs, from its start to its end."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        self.plan = plan
        # First in, last out: servers that it starts anew die with its threads.
        starting = stack.enter_context(ThreadPoolExecutor(3))
        self.store = Store(plan.store, stack)
        self.app = stack.enter_context(MariaDB())
        self.source = stack.enter_context(MariaDB())
        broker = stack.enter_context(RabbitMQ())
        self.mail = stack.enter_context(MailServer())
        self._source_url = self.source.create_database("shop")
        self.source.sql(TABLES % plan.rows + PAIRS, "shop")
        env = {
            **ENVIRONMENT,
            **self.store.env,
            "SOURCE_SHOP_URL": self._source_url,
            "EXPORTAPP_MAIL_URL": self.mail.url,
        }
        self.desk = stack.enter_context(Desk(self.app, broker, DATASETS, env))
        self.desk.manage("migrate", "-v0")
        self.desk.manage("shell", "-v0", "-c", making_people())
        self._ways = stack.enter_context(ExitStack())
        proxies = {
            "app database": self._ways.enter_context(Proxy(self.app.port)),
            "source": self._ways.enter_context(Proxy(self.source.port, PACE)),
            "broker": self._ways.enter_context(Proxy(broker.port)),
            **self.store.proxies,
        }
        self._way_to_source = proxies["source"].port
        self._at_rest: set[int] = set()  # what the desk held open to the source when all was done
        self.supervisor = Supervisor(self.desk, self._starters(proxies))
        self.people = [Person(name, self.desk.address, plan.seed, pause=plan.pause, rows=plan.rows) for name in PEOPLE]
        looking = stack.enter_context(ThreadPoolExecutor(1))
        self.watch = Watch(self.app, self.desk.app, self._source_url, lambda: self.store.names(self.desk.var), looking)
        servers = {"app database": self.app, "source": self.source, "broker": broker}
        self.chaos = Chaos(
            plan.seed,
            plan.fault_pause,
            LEASE,
            self.supervisor,
            proxies,
            servers,
            self.mail,
            starting,
            self.watch.working,
        )
        stack.callback(self._stop)  # last in, first out

    def _starters(self, proxies: dict[str, Proxy]) -> dict[str, Callable[[], None]]:
        ways = {"EXPORTAPP_DATABASE_URL": "app database", "SOURCE_SHOP_URL": "source", "EXPORTAPP_BROKER_URL": "broker"}
        env = {name: proxies[way].through(self.desk.env[name]) for name, way in ways.items()}
        return {
            "web": lambda: self.desk.start_web("web", **env),
            "dispatcher-1": lambda: self.desk.start_dispatcher("dispatcher-1", **env),
            "dispatcher-2": lambda: self.desk.start_dispatcher("dispatcher-2", **env),
            "worker-1": lambda: self.desk.start_worker("worker-1", concurrency=2, **env),
            "worker-2": lambda: self.desk.start_worker("worker-2", concurrency=2, **env),
        }

    def _stop(self) -> None:
        self._end_people()
        self.chaos.heal()  # nothing ends that is frozen, and a server that just starts would outlive its folder

    def _end_people(self) -> None:
        for person in self.people:
            person.ending.set()

    # --- its course --------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        began = time.monotonic()
        self.supervisor.start()
        for person in self.people:
            person.start()
        self._while(lambda: time.monotonic() < began + self.plan.seconds, faults=True)
        print("faults end; the desk settles", flush=True)
        self.chaos.heal()
        self._end_people()
        self._while(lambda: any(person.is_alive() for person in self.people))
        for person in self.people:
            if person.error:
                raise person.error
        with tempfile.TemporaryDirectory(prefix="exportapp-campaign-") as folder:
            return self._judged(Path(folder), began)

    def _while(self, going: Callable[[], bool], faults: bool = False) -> None:
        while going():
            self.supervisor.tend()
            if faults:
                self.chaos.tend()
            self.watch.tend(self.chaos.done)
            time.sleep(0.05)

    def _meanwhile(self, work: Callable[[], T]) -> T:
        """Does something that takes long in another thread, because this one supervises."""
        with ThreadPoolExecutor(1) as helper:
            future = helper.submit(work)
            self._while(lambda: not future.done())
            return future.result()

    def _judged(self, folder: Path, began: float) -> Outcome:
        found = self._meanwhile(lambda: self._settled(folder))
        stray = self.supervisor.unowned()
        left = [f"at the source: {query}" for query in self._queries()] + self._kept()
        recovery, cancelling = self.watch.recovery(), self.watch.cancelling()
        self._keep_logs()
        self.desk.processes.stop_all()
        stray += self.desk.processes.survivors()
        self._ways.close()  # what the proxies hold up for ever would hide what the servers do
        _patiently(20, self._unowned_threads, "has connections")
        left += self._unowned_threads()
        print("the desk has ended; the oracle reads", flush=True)
        with mysql(self._source_url) as cursor:
            truths: dict[str, Truth] = {name: mysql_truth(cursor, name, order="id") for name in ("notes", "pairs")}
        log = [asked for person in self.people for asked in person.log]
        verdict = judge(log, found, list(map(mail_of, self.mail.messages)), self.store.names(self.desk.var), truths)
        verdict.orphans += [f"process {pid}" for pid in stray] + left
        return Outcome(
            self.plan, verdict, self.chaos.counts, recovery, cancelling, self.watch.idle, self.supervisor.overdue,
            time.monotonic() - began,
        )  # fmt: skip

    def _settled(self, folder: Path) -> list[Found]:
        _patiently(SETTLE, lambda: [one for person in self.people for one in person.unfinished()], "ends")
        exports = [(person, name, number) for person in self.people for name, number, _ in person.all_exports()]
        found = [person.find(name, number, folder) for person, name, number in exports]
        told = {one.id for one in found if one.state in ("Ready", "Failed")}
        ready = Counter(one.id for one in found if one.state == "Ready")
        _patiently(120, lambda: list(told - {mail_of(message).id for message in self.mail.messages}), "mails")
        _patiently(60, lambda: list(Counter(map(_folder, self.store.names(self.desk.var))) - ready), "tidies")
        _patiently(60, self._queries, "ends queries")
        self._at_rest = held(self._way_to_source)
        _patiently(60, self._kept, "has connections to the source")
        return found

    def _queries(self) -> list[str]:
        running = "SELECT info FROM information_schema.processlist WHERE info LIKE '/* exportapp %'"
        return self.source.sql(running).splitlines()

    def _kept(self) -> list[str]:
        """Connections to the source that the desk has kept since all was done: it needs none between two steps."""
        kept = self._at_rest & held(self._way_to_source)
        return [f"a connection to the source, from port {port}" for port in sorted(kept)]

    def _unowned_threads(self) -> list[str]:
        """What the desk's user still has at the servers when the desk has ended."""
        servers = {"source": self.source, "app database": self.app}
        return [f"a connection at the {name}: {one}" for name, server in servers.items() for one in served(server)]

    def _keep_logs(self) -> None:
        if self.plan.logs:
            self.plan.logs.mkdir(parents=True, exist_ok=True)
            for name in self.supervisor.names:
                (self.plan.logs / f"{name}.log").write_text(self.desk.processes.log(name))
            for table in ("export", "step", "event"):
                rows = self.app.sql(f"SELECT * FROM exportapp_{table}", self.desk.app)
                (self.plan.logs / f"{table}.tsv").write_text(rows)
            faults = (f"{time.strftime('%T', time.gmtime(one.at))} {one.kind} {one.pids}\n" for one in self.chaos.done)
            (self.plan.logs / "faults").write_text("".join(faults))


def _folder(name: str) -> str:
    return name.partition("/")[0]


def _patiently(seconds: float, rest: Callable[[], list[str]], what: str) -> None:
    """Waits until nothing is left to do; what then is left still, the oracle judges."""
    left: list[str] = []

    def nothing_left() -> bool:
        left[:] = rest()
        return not left

    try:
        wait_until(nothing_left, seconds, what, interval=1)
    except AssertionError:
        print(f"after {seconds} s the desk still {what}: {left[:5]}", flush=True)


# --- from the command line -------------------------------------------------------------------------------------------


def run(plan: Plan) -> Outcome:
    """Runs a campaign; everything that it starts has ended when it returns, or raises."""
    print(f"seed {plan.seed}, {plan.seconds:.0f} s of faults, files: {plan.store}", flush=True)
    print(" ".join(f"{name}={value}" for name, value in ENVIRONMENT.items()), flush=True)
    with ExitStack() as stack:
        return Campaign(plan, stack).run()


def report(outcome: Outcome) -> None:
    verdict = outcome.verdict
    for kind in ("lost", "doubled", "bad", "orphans", "failed"):
        for sentence in getattr(verdict, kind):
            print(f"{kind}: {sentence[:1000]}")
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.faults.items()))
    print(f"{verdict.interrupted} exports were interrupted; {counts}")
    print(f"work waited at most {outcome.idle:.1f} s while no step ran; {outcome.overdue} deploys took too long; "
          f"{outcome.took:.0f} s in all")  # fmt: skip
    print(outcome.line, flush=True)


def _asked(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=10, help="how long faults strike; start and judgement come on top"
    )
    parser.add_argument("--store", choices=("local", "moto", "seaweedfs"), default="local")
    parser.add_argument("--logs", type=Path, help="a folder for logs and tables of the desk")
    given = parser.parse_args(arguments)
    return Plan(given.seed, given.minutes * 60, given.store, logs=given.logs)


def _end(*_: object) -> NoReturn:
    raise SystemExit(143)  # and so unwinds


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _end)
    outcome = run(_asked(arguments))
    report(outcome)
    campaign_record.write(outcome.line, outcome.plan.seconds, outcome.plan.store)
    return 0 if outcome.verdict.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
