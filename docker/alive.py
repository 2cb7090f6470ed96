"""The health check of dispatcher and worker, which have no port: did this container give a sign of life lately?
The argument says which of the two it is."""

import socket
import sys
from datetime import timedelta

import django

django.setup()

from exportapp.lifecycle import now  # noqa: E402  models need django.setup()
from exportapp.models import Process  # noqa: E402

# They give one every 5 and 10 seconds.
signs = Process.objects.filter(kind=sys.argv[1], seen_at__gte=now() - timedelta(seconds=45))
sys.exit(not signs.filter(name__startswith=f"{sys.argv[1]} {socket.gethostname()}:").exists())
