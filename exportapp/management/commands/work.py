"""manage.py work: dispatcher and Celery worker in one process, for the embedded default."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from exportapp.celery import app
from exportapp.dispatcher import Dispatcher
from exportapp.models import Step, StepState


class Command(BaseCommand):
    help = "Runs exports on this machine alone: the dispatcher as threads beside a Celery worker, without a broker."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--concurrency", type=int, default=2, help="how many steps run at once (default 2)")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.BROKER_URL.startswith("memory:"):
            raise CommandError(
                "EXPORTAPP_BROKER_URL names a broker: run `manage.py dispatch` and `celery -A exportapp worker` instead."
            )
        # The threads pool: in one process with the dispatcher's threads, forking a pool deadlocked on inherited locks.
        worker = app.Worker(
            pool="threads",
            concurrency=options["concurrency"],
            loglevel="INFO",
            without_heartbeat=True,
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )
        # A broker in memory has forgotten what was rung for before.
        Step.objects.filter(state=StepState.WAITING).update(rung_at=None)
        dispatcher = Dispatcher()
        dispatcher.start()
        try:
            worker.start()
        finally:
            dispatcher.stop()
        raise SystemExit(worker.exitcode or 0)
