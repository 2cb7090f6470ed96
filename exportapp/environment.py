"""Reads settings from environment variables. A wrong value never stops the start here: it is noted in PROBLEMS,
and the system checks report it with its hint, all of them at once."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Problem:
    variable: str
    message: str
    hint: str


PROBLEMS: list[Problem] = []


def note(variable: str, message: str, hint: str) -> None:
    PROBLEMS.append(Problem(variable, message, hint))


def env_text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def env_secret(name: str, default: str = "") -> str:
    """The variable itself, or the content of the file that NAME_FILE names."""
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            note(f"{name}_FILE", f"the file {path} cannot be read: {reason}", "Name a file that this user may read.")
    return env_text(name, default)


def env_bool(name: str, default: bool) -> bool:
    text = env_text(name).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text and text not in ("0", "false", "no", "off"):
        note(name, f"{text!r} is neither yes nor no", "Write 1 or 0.")
    return default if not text else False


def env_number(name: str, default: float, *, least: float = 0, most: float = math.inf) -> float:
    text = env_text(name)
    if not text:
        return default
    try:
        if math.isfinite(value := float(text)) and least <= value <= most:
            return value
    except ValueError:
        pass
    limit = "" if most == math.inf else f" and at most {most:g}"
    note(name, f"{text!r} is not a number of at least {least:g}{limit}", f"Write a number such as {default:g}.")
    return default


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    """One of `choices`, whatever its case."""
    text = env_text(name, default)
    if text.upper() in choices:
        return text.upper()
    note(name, f"{text!r} is none of {', '.join(choices)}", "Write one of them.")
    return default


def env_folder(name: str, default: Path) -> Path:
    """A folder, made if it is missing. One that cannot be is noted, and replaced so that the checks come to tell it."""
    path = Path(env_text(name, str(default))).resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        note(name, f"the folder {path} cannot be made: {error.strerror}", "Name a folder that this user may write to.")
        return Path(tempfile.mkdtemp(prefix="exportapp-"))
    return path


def env_list(name: str, default: list[str]) -> list[str]:
    text = env_text(name)
    return [item.strip() for item in text.split(",") if item.strip()] if text else default


def env_url(name: str, default: str, schemes: tuple[str, ...], example: str) -> str:
    """A URL of one of `schemes`; anything else is noted and replaced by the default. '' is one only as the default."""
    value = env_secret(name, default)
    fault = _fault(value, schemes) if value else ""
    if not fault:
        return value
    note(name, fault, f"Write it like {example}")
    return default


_NEEDS_HOST = {"mysql", "amqp", "amqps", "smtp", "smtps", "smtp+tls", "http", "https"}
_MYSQL_OPTIONS = {"ssl_ca", "unix_socket"}


def _fault(url: str, schemes: tuple[str, ...]) -> str:
    """What is wrong with a URL, '' if nothing is. Says nothing of what stands in it, which may be a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the address is not understood; special characters in it have to be percent-encoded"
    if parts.scheme not in schemes:
        return f"the address begins with none of {', '.join(f'{scheme}:' for scheme in schemes)}"
    options = parse_qs(parts.query)
    if (parts.scheme in _NEEDS_HOST and not parts.hostname and "unix_socket" not in options) or port == 0:
        return "the address names no host, or the port 0"
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        return "the address names no folder by its whole path"
    if parts.scheme in ("mysql", "sqlite") and not parts.path.strip("/"):
        return "the address names no database"
    if parts.scheme == "mysql":
        if unknown := sorted(options.keys() - _MYSQL_OPTIONS):
            return f"the address has an unknown option, {unknown[0]}"
        if not all(Path(file).is_file() for file in options.get("ssl_ca", [])):
            return "the address names a file for ssl_ca that is not there"
    return ""


def database(url: str) -> dict[str, Any]:
    """Django's settings for the app database: `sqlite:////path` or `mysql://user:password@host:port/name`."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path)[1:],
            # Writers queue at BEGIN instead of failing at their first write, and readers never block them.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("unix_socket", None) or parts.hostname or "127.0.0.1",
        "PORT": str(parts.port or 3306),
        "CONN_MAX_AGE": 30,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "charset": "utf8mb4",
            "isolation_level": "read committed",
            "connect_timeout": 5,
            "read_timeout": 15,
            "write_timeout": 15,
            # Django leaves the session's zone to the server; our leases compare the server's times with each other.
            # A process that is frozen in the middle of a claim holds a lock that all others wait for: the server is to
            # end such a transaction soon. Only MariaDB has a limit of its own for that, and only it reads /*M!.
            # A wait for a lock ends before read_timeout, so that it is told from a server that is away.
            "init_command": "SET time_zone='+00:00', sql_mode='TRADITIONAL,NO_ENGINE_SUBSTITUTION', wait_timeout=60, "
            "innodb_lock_wait_timeout=5 "
            "/*M!100300 , idle_transaction_timeout=10 */",
            **({"ssl": {"ca": options["ssl_ca"]}} if "ssl_ca" in options else {}),
        },
        "TEST": {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_bin"},
    }


def mail(url: str) -> dict[str, Any]:
    """Django's EMAIL_* settings for `smtp://`, `smtps://`, `smtp+tls://`, `console:` and `file:///folder`."""
    parts = urlsplit(url)
    if parts.scheme == "console":
        return {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}
    if parts.scheme == "file":
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "EMAIL_FILE_PATH": unquote(parts.path),
        }
    return {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": parts.hostname or "localhost",
        "EMAIL_PORT": parts.port or {"smtps": 465, "smtp+tls": 587}.get(parts.scheme, 25),
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_SSL": parts.scheme == "smtps",
        "EMAIL_USE_TLS": parts.scheme == "smtp+tls",
        "EMAIL_TIMEOUT": 10,
    }
