"""Private real servers and supervised processes for tests: each on free ports of 127.0.0.1, in a temporary
folder it removes. Plain context managers without pytest, so that scripts can use them as well."""

from .base import Server, free_port, wait_until
from .mail import MailServer
from .mariadb import MariaDB
from .processes import Processes
from .rabbitmq import RabbitMQ
from .s3 import Moto, SeaweedFS

__all__ = [
    "MailServer",
    "MariaDB",
    "Moto",
    "Processes",
    "RabbitMQ",
    "SeaweedFS",
    "Server",
    "free_port",
    "wait_until",
]
