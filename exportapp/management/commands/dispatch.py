"""manage.py dispatch: the dispatcher process."""

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from exportapp.dispatcher import Dispatcher


class Command(BaseCommand):
    help = "Rings for exports that wait, takes back what died, removes what is old. Any number may run."

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.BROKER_URL.startswith("memory:"):
            raise CommandError(
                "EXPORTAPP_BROKER_URL names no broker: run `manage.py work`, which is all in one process."
            )
        ending = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ending.set())
        dispatcher = Dispatcher()
        dispatcher.start()
        self.stdout.write("dispatcher: ready")
        ending.wait()
        dispatcher.stop()
