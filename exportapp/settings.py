"""Settings, read top to bottom from EXPORTAPP_* variables. Without any, the app runs on a laptop: SQLite, files
below var/, a broker in memory and mails as files. docs/settings.md lists the variables."""

from __future__ import annotations

import re
import secrets
from email.utils import parseaddr
from pathlib import Path
from urllib.parse import urlsplit

from csp.constants import NONE, SELF

from exportapp.environment import (
    database,
    env_bool,
    env_choice,
    env_folder,
    env_list,
    env_number,
    env_secret,
    env_text,
    env_url,
    mail,
    note,
)

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = env_folder("EXPORTAPP_VAR", BASE_DIR / "var")

# --- who we are ------------------------------------------------------------------------------------------------------

DEBUG = env_bool("EXPORTAPP_DEBUG", False)


def _secret_key() -> str:
    if key := env_secret("EXPORTAPP_SECRET_KEY"):
        return key
    path = VAR / "secret-key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(60))
    return path.read_text()


SECRET_KEY = _secret_key()
BASE_URL = env_url(
    "EXPORTAPP_BASE_URL", "http://127.0.0.1:8000", ("http", "https"), "https://exports.example.com"
).rstrip("/")
if urlsplit(BASE_URL).path:
    note("EXPORTAPP_BASE_URL", "the address holds a path, and the pages have none", "Write it like https://host")
_HTTPS = BASE_URL.startswith("https:")
ALLOWED_HOSTS = env_list(
    "EXPORTAPP_ALLOWED_HOSTS", sorted({urlsplit(BASE_URL).hostname or "", "127.0.0.1", "localhost"})
)
if strange := [host for host in ALLOWED_HOSTS if re.search(r"[/\s@]", host)]:
    note("EXPORTAPP_ALLOWED_HOSTS", f"{strange[0]!r} is no name of a host", "Write names, with commas between.")
CSRF_TRUSTED_ORIGINS = [BASE_URL]

# --- the parts that can be real services -----------------------------------------------------------------------------

DATABASES = {
    "default": database(
        env_url(
            "EXPORTAPP_DATABASE_URL",
            f"sqlite:///{VAR}/exportapp.sqlite3",
            ("sqlite", "mysql"),
            "mysql://user:password@host:3306/exportapp",
        )
    )
}
BROKER_URL = env_url(
    "EXPORTAPP_BROKER_URL", "memory://localhost", ("memory", "amqp", "amqps"), "amqp://user:password@host:5672/vhost"
)
STORAGE_URL = env_url(
    "EXPORTAPP_STORAGE_URL", f"file://{VAR}/files", ("file", "s3"), "s3://bucket/prefix or file:///folder"
)
# For S3-compatible stores, AWS needs none; and the same as browsers reach it, in signed links.
S3_ENDPOINT = env_url("EXPORTAPP_S3_ENDPOINT", "", ("http", "https"), "http://s3.example.com:8333")
S3_PUBLIC_ENDPOINT = env_url(
    "EXPORTAPP_S3_PUBLIC_ENDPOINT", S3_ENDPOINT, ("http", "https"), "https://files.example.com"
)
LINK_SECONDS = int(env_number("EXPORTAPP_LINK_SECONDS", 300, least=1, most=604_800))  # S3 signs for a week at most

MAIL_URL = env_url("EXPORTAPP_MAIL_URL", f"file://{VAR}/mail", ("smtp", "smtps", "smtp+tls", "console", "file"),
                   "smtp://user:password@host:25")  # fmt: skip
globals().update(mail(MAIL_URL))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env_text("EXPORTAPP_MAIL_FROM", "exportapp <exports@localhost>")

if "@" not in parseaddr(DEFAULT_FROM_EMAIL)[1]:
    note("EXPORTAPP_MAIL_FROM", "it holds no address", "Write it like Export desk <exports@example.com>")

DATASETS_FILE = Path(env_text("EXPORTAPP_DATASETS", str(BASE_DIR / "datasets.toml")))

# --- how exports run; the reasons are in docs/decisions --------------------------------------------------------------

LEASE_SECONDS = env_number("EXPORTAPP_LEASE_SECONDS", 60, least=3)
BEAT_SECONDS = LEASE_SECONDS / 6
SELF_STOP_SECONDS = LEASE_SECONDS * 0.75
SWEEP_SECONDS = env_number("EXPORTAPP_SWEEP_SECONDS", 10, least=0.1)
RING_AGAIN_SECONDS = env_number("EXPORTAPP_RING_AGAIN_SECONDS", 30, least=0.5)
RETRY_SECONDS = env_number("EXPORTAPP_RETRY_SECONDS", 10, least=0)  # the first back-off; doubled each time
RETRIES = 10  # doubling from 10 s they bridge an outage of most of an hour
MAIL_SECONDS = 86_400  # for so long a mail is tried
STALL_SECONDS = env_number("EXPORTAPP_STALL_SECONDS", 900, least=1)  # longer than a query may take until its first row
CRASHES = 3
SLICE_SECONDS = 60  # a worker goes on claiming for so long before it gives the doorbell back
CHUNK_SECONDS = env_number("EXPORTAPP_CHUNK_SECONDS", 60, least=0.1)
CHUNK_ROWS = int(env_number("EXPORTAPP_CHUNK_ROWS", 500_000, least=1))
SMALL_ROWS = 100_000  # an export of fewer rows counts as small
STEPS_PER_EXPORT = int(env_number("EXPORTAPP_STEPS_PER_EXPORT", 4, least=1))
STEPS_PER_PERSON = int(env_number("EXPORTAPP_STEPS_PER_PERSON", 8, least=1))
STEPS_IN_ALL = int(env_number("EXPORTAPP_STEPS_IN_ALL", 64, least=1))
EXPORTS_PER_PERSON = int(env_number("EXPORTAPP_EXPORTS_PER_PERSON", 300, least=1))  # waiting and running
EXPORTS_IN_ALL = int(env_number("EXPORTAPP_EXPORTS_IN_ALL", 20_000, least=1))
ROWS_PER_PERSON = int(env_number("EXPORTAPP_ROWS_PER_PERSON", 0, least=0))  # in finished files; 0 is no limit
ROWS_IN_ALL = int(env_number("EXPORTAPP_ROWS_IN_ALL", 0, least=0))
MB_PER_PERSON = int(env_number("EXPORTAPP_MB_PER_PERSON", 0, least=0))
MB_IN_ALL = int(env_number("EXPORTAPP_MB_IN_ALL", 0, least=0))
MIN_FREE_MB = int(env_number("EXPORTAPP_MIN_FREE_MB", 500, least=0))
FIGURES_HOURS = env_number("EXPORTAPP_FIGURES_HOURS", 6, least=0)  # 0: no figures for estimates

# --- Django ----------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "exportapp.apps.ExportappConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "csp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "exportapp.web.middleware.note_origin",
]
ROOT_URLCONF = "exportapp.urls"
WSGI_APPLICATION = "exportapp.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
LANGUAGE_CODE = "en-gb"  # days before months
FORMAT_MODULE_PATH = "exportapp.formats"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # there are few and small ones: nobody needs to run collectstatic

# --- security --------------------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _HTTPS
SECURE_SSL_REDIRECT = env_bool("EXPORTAPP_SSL_REDIRECT", _HTTPS)
SECURE_HSTS_SECONDS = 31_536_000 if _HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _HTTPS
BEHIND_PROXY = env_bool("EXPORTAPP_BEHIND_PROXY", False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if _HTTPS and not env_secret("EXPORTAPP_SECRET_KEY"):
    note(
        "EXPORTAPP_SECRET_KEY",
        "a public address needs a secret key of its own, the same for every process",
        "Set it, or EXPORTAPP_SECRET_KEY_FILE, to 50 random characters or more.",
    )

# --- logs ------------------------------------------------------------------------------------------------------------

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env_choice("EXPORTAPP_LOG_LEVEL", "INFO", LOG_LEVELS)},
    "loggers": {"pika": {"level": "CRITICAL"}},  # its failures are raised, and told once by the dispatcher
}
