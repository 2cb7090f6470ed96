"""docker-compose.yml as `docker-compose config` understands it, and the Dockerfile. No Docker daemon is asked."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exportapp.celery import app
from tests.services.base import find_program
from tests.test_settings_documented import documented

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"
EXAMPLE = (ROOT / ".env.example").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
GUIDE = (ROOT / "docs/operating.md").read_text()

APP = ("web", "dispatcher", "worker")
SERVERS = ("database", "shop", "rabbitmq", "s3", "mail")
REQUIRED = sorted(set(re.findall(r"\$\{(\w+):\?", FILE.read_text())))


def config(env_file: Path) -> subprocess.CompletedProcess[str]:
    program = find_program("docker-compose", "docker-compose")
    command = [program, "--file", str(FILE), "--env-file", str(env_file), "config"]
    # Nothing of this environment: a variable of the same name would count before the file.
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The whole file with the example's values."""
    env_file = tmp_path_factory.mktemp("compose") / ".env"
    env_file.write_text(EXAMPLE)
    done = config(env_file)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    resolved: dict[str, Any] = yaml.safe_load(done.stdout)
    return resolved


@pytest.fixture
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert found
    return 60 * int(found[1] or 0) + int(found[2] or 0)


def instructions(name: str, text: str) -> list[str]:
    return re.findall(rf"(?m)^{name}\s+(.*)$", text)


# --- what runs, in which order ---------------------------------------------------------------------------------------


def test_every_part_of_a_desk_is_there(services: dict[str, Any]) -> None:
    assert services.keys() == {*APP, *SERVERS, "setup"}


@pytest.mark.parametrize("name", [*APP, *SERVERS])
def test_what_runs_on_is_restarted_and_looked_after(services: dict[str, Any], name: str) -> None:
    assert services[name]["restart"] == "unless-stopped"
    assert services[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", APP)
def test_app_starts_when_tables_bucket_and_shop_are_made(services: dict[str, Any], name: str) -> None:
    assert services[name]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}
    assert services["setup"]["restart"] == "no"
    assert services["setup"]["depends_on"] == {
        server: {"condition": "service_healthy"} for server in ("database", "shop", "s3")
    }
    script = (ROOT / "docker/setup.sh").read_text()
    assert services["setup"]["command"] == "sh docker/setup.sh"
    assert script.index("make_bucket.py") < script.index("sample_data") < script.index("migrate")


def test_worker_runs_with_the_flags_that_keep_it_from_hanging_on_a_broker(services: dict[str, Any]) -> None:
    command = shlex.split(services["worker"]["command"])
    assert command[:4] == ["celery", "-A", "exportapp", "worker"]
    assert {"--without-heartbeat", "--without-gossip", "--without-mingle"} <= set(command)
    assert command[command.index("-O") + 1] == "fair"


def test_pages_are_served_by_threads(services: dict[str, Any]) -> None:
    command = shlex.split(services["web"]["command"])
    assert command[:2] == ["gunicorn", "exportapp.wsgi"]
    assert command[command.index("--worker-class") + 1] == "gthread"
    assert command[command.index("--threads") + 1] == "32"


def test_workers_can_be_scaled(services: dict[str, Any]) -> None:
    assert not services["worker"].keys() & {"container_name", "hostname", "ports"}
    assert not services["dispatcher"].keys() & {"container_name", "hostname", "ports"}


@pytest.mark.parametrize("name", APP)
def test_units_in_the_operators_guide_run_the_same_commands(services: dict[str, Any], name: str) -> None:
    [unit] = re.findall(rf"`exportapp-{name}\.service`:\n\n```ini\n(.*?)```", GUIDE, re.DOTALL)
    [started] = re.findall(r"(?m)^ExecStart=/opt/exportapp/.venv/bin/(.*)$", unit)
    own = {"--bind", "127.0.0.1:8000", "0.0.0.0:8000", "--workers", "2", "--concurrency", "4"}
    assert [word for word in shlex.split(started) if word not in own] == [
        word for word in shlex.split(services[name]["command"]) if word not in own
    ]
    [stopped] = re.findall(r"(?m)^TimeoutStopSec=(\d+)$", unit)
    assert int(stopped) == seconds(services[name]["stop_grace_period"])
    assert "\nKillMode=mixed\n" in GUIDE


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", APP)
def test_sigterm_reaches_the_program_itself_and_not_its_children(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["init"] is True  # it signals its child alone
    assert service.get("stop_signal", "SIGTERM") == "SIGTERM"
    assert "entrypoint" not in service
    assert not instructions("ENTRYPOINT", DOCKERFILE)
    assert shlex.split(service["command"])[0] in ("gunicorn", "python", "celery")
    assert not re.search(r"[;&|$`]", service["command"])


def test_worker_is_given_time_to_drain(services: dict[str, Any]) -> None:
    assert seconds(services["worker"]["stop_grace_period"]) >= 2 * app.conf.worker_soft_shutdown_timeout


def test_data_outlives_its_containers(compose: dict[str, Any]) -> None:
    for name in ("database", "shop", "rabbitmq", "s3"):
        named = [volume.split(":")[0] for volume in compose["services"][name]["volumes"]]
        assert name in named
        assert name in compose["volumes"]


# --- the servers -----------------------------------------------------------------------------------------------------


def test_broker_leaves_a_busy_worker_its_channel(services: dict[str, Any]) -> None:
    mounted = [volume.split(":") for volume in services["rabbitmq"]["volumes"]]
    [(source, place, mode)] = [mount for mount in mounted if mount[1].startswith("/etc/rabbitmq/conf.d/")]
    assert Path(source) == ROOT / "docker/rabbitmq.conf"
    assert (place.endswith(".conf"), mode) == (True, "ro")
    assert "consumer_timeout = 86400000" in (ROOT / "docker/rabbitmq.conf").read_text().splitlines()


def test_broker_has_an_own_user_and_vhost(services: dict[str, Any]) -> None:
    broker = services["rabbitmq"]["environment"]
    address = f"amqp://exportapp:{broker['RABBITMQ_DEFAULT_PASS']}@rabbitmq:5672/exportapp"
    assert (broker["RABBITMQ_DEFAULT_USER"], broker["RABBITMQ_DEFAULT_VHOST"]) == ("exportapp", "exportapp")
    assert services["worker"]["environment"]["EXPORTAPP_BROKER_URL"] == address


@pytest.mark.parametrize("name", APP)
def test_exports_are_read_by_a_user_that_can_change_nothing(services: dict[str, Any], name: str) -> None:
    shop, environment = services["shop"]["environment"], services[name]["environment"]
    assert environment["SOURCE_SHOP_URL"] == f"mysql://exportapp:{shop['SHOP_READER_PASSWORD']}@shop/shop"
    assert "@database/" in environment["EXPORTAPP_DATABASE_URL"]
    script = (ROOT / "docker/shop-reader.sh").read_text()
    assert re.findall(r"GRANT (.*?) ON (\S+)", script) == [("SELECT, SHOW VIEW", "shop.*")]
    # An executable one would be run instead of sourced, and would miss the image's function.
    assert not (ROOT / "docker/shop-reader.sh").stat().st_mode & 0o111


def test_reader_may_open_more_connections_than_steps_will() -> None:
    [most] = re.findall(r"MAX_USER_CONNECTIONS (\d+)", (ROOT / "docker/shop-reader.sh").read_text())
    with (ROOT / "datasets.toml").open("rb") as file:
        assert int(most) >= 2 * tomllib.load(file)["sources"]["shop"]["connections"]


def test_only_what_browsers_need_is_published_and_on_this_machine_alone(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "web": ["127.0.0.1:8000:8000/tcp"],
        "mail": ["127.0.0.1:8025:8025/tcp"],
        "s3": ["127.0.0.1:8333:8333/tcp"],
    }
    environment = services["web"]["environment"]
    assert environment["EXPORTAPP_BASE_URL"] == "http://127.0.0.1:8000"
    assert environment["EXPORTAPP_S3_PUBLIC_ENDPOINT"] == "http://127.0.0.1:8333"


def test_other_ports_move_the_addresses_with_them(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{EXAMPLE}\nWEB_PORT=9000\nMAIL_PORT=9025\nS3_PORT=9333\n")
    text = config(tmp_path / ".env").stdout
    for line in ("127.0.0.1:9000:8000", "127.0.0.1:9025:8025", "127.0.0.1:9333:8333"):
        assert line in text
    assert "EXPORTAPP_BASE_URL: http://127.0.0.1:9000\n" in text
    assert "EXPORTAPP_S3_PUBLIC_ENDPOINT: http://127.0.0.1:9333\n" in text


@pytest.mark.parametrize("name", SERVERS)
def test_image_is_pinned_to_a_minor_version(services: dict[str, Any], name: str) -> None:
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+", services[name]["image"])


@pytest.mark.parametrize("name", [*APP, "setup"])
def test_app_is_given_settings_that_it_knows(services: dict[str, Any], name: str) -> None:
    known = documented().keys() | {"SOURCE_SHOP_URL"}
    assert services[name]["environment"].keys() - known == set()


# --- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", REQUIRED)
def test_without_a_password_nothing_starts_and_it_is_named(tmp_path: Path, missing: str) -> None:
    kept = [line for line in EXAMPLE.splitlines() if not line.startswith(f"{missing}=")]
    assert len(kept) == len(EXAMPLE.splitlines()) - 1
    (tmp_path / ".env").write_text("\n".join(kept))
    done = config(tmp_path / ".env")
    assert done.returncode != 0
    assert done.stderr.strip().endswith(f"set {missing} in .env")


def test_no_password_stands_in_the_file_itself() -> None:
    text = FILE.read_text()
    for password in re.findall(r"://\w+:(.*?)@", text):
        assert password.startswith("${"), password
    for name, value in re.findall(r"(?m)^\s+(\w*(?:PASS|PASSWORD|KEY|KEY_ID|SECRET)):\s*(.*)$", text):
        assert re.fullmatch(r"\$\{\w+:\?set \w+ in \.env\}", value) or name == "MARIADB_RANDOM_ROOT_PASSWORD", name


def test_example_has_the_variables_of_the_file_and_no_others() -> None:
    named = set(re.findall(r"\$\{(\w+):", FILE.read_text()))
    assert set(re.findall(r"(?m)^#?([A-Z0-9_]+)=", EXAMPLE)) == named
    assert all(value.startswith("example-") for value in re.findall(r"(?m)^[A-Z0-9_]+=(.*)$", EXAMPLE))


# --- the image -------------------------------------------------------------------------------------------------------


def test_program_does_not_run_as_root(services: dict[str, Any]) -> None:
    last_stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    [user] = instructions("USER", last_stage)
    assert user == "exportapp"
    assert re.search(r"useradd --system --uid [1-9]\d* .*\bexportapp\b", last_stage)
    assert not any("user" in services[name] for name in (*APP, "setup"))


@pytest.mark.parametrize("name", [*APP, "setup"])
def test_program_can_write_nowhere_and_has_no_rights_to_lose(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_image_runs_the_pages_as_compose_does(services: dict[str, Any]) -> None:
    [command] = instructions("CMD", DOCKERFILE)
    assert json.loads(command) == shlex.split(services["web"]["command"])


def test_image_holds_the_program_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert let_in == {
        "datasets.toml", "docker", "exportapp", "manage.py", "requirements.txt", "static", "templates", "worker",
    }  # fmt: skip
    assert all((ROOT / name).exists() for name in let_in)
