"""The WSGI entry point, for gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "exportapp.settings")
application = get_wsgi_application()

from exportapp.checks import check_settings  # noqa: E402  the line before makes Django ready for it

check_settings()
