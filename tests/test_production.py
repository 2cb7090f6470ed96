"""Django's own deployment checks, and ours, find nothing on the settings that a company runs with."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from exportapp.sample import write_shop
from tests.services import MariaDB

ROOT = Path(__file__).resolve().parent.parent


def test_deployment_check_is_clean_on_production_settings(mariadb: MariaDB, tmp_path: Path) -> None:
    shop = mariadb.create_database("production_shop")
    write_shop(shop, orders=50, progress=lambda line: None)
    production = {
        "EXPORTAPP_VAR": str(tmp_path),
        "EXPORTAPP_SECRET_KEY": secrets.token_urlsafe(60),
        "EXPORTAPP_BASE_URL": "https://exports.example.com",
        "EXPORTAPP_DATABASE_URL": mariadb.create_database("production_app"),
        "EXPORTAPP_BROKER_URL": "amqp://exportapp:secret@rabbitmq.example.com:5672/exportapp",
        "EXPORTAPP_STORAGE_URL": "s3://exports/files",
        "EXPORTAPP_MAIL_URL": "smtp+tls://exportapp:secret@mail.example.com",
        "SOURCE_SHOP_URL": shop,
    }
    check = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(check, cwd=ROOT, env=os.environ | production, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues" in done.stdout + done.stderr
