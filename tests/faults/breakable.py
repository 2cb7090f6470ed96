"""A desk whose workers break at a point that an export's name names, and what its database says the files must be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from exportapp.models import UNFINISHED
from tests.journeys.desk import BIN, Desk
from tests.services import MailServer, wait_until
from tests.services.s3 import REGION, S3Server

NOTES = """
[sources.shop]
[datasets.notes]
source = "shop"
table = "notes"
key = ["id"]
columns = [
    { name = "id", type = "integer" },
    { name = "note" },
    { name = "price", type = "decimal", scale = 2 },
    { name = "at", type = "datetime" },
]
"""

HEADER = '"Id","Note","Price","At"\r\n'
CSV_BY_SQL = r"""
SELECT CONCAT(id, ',', IF(note IS NULL, '', CONCAT('"', REPLACE(note, '"', '""'), '"')), ',',
    IFNULL(price, ''), ',', at, '\r') FROM notes ORDER BY id
"""

NOBODY_WORKS = "SELECT 1 FROM exportapp_step WHERE state IN ('waiting', 'running') LIMIT 1"
UNTIDY = f"SELECT 1 FROM exportapp_export WHERE NOT tidied OR state IN {tuple(map(str, UNFINISHED))} LIMIT 1"


def table(rows: int, width: int) -> str:
    """A table of notes with what CSV files break of; `width` is how many letters most notes have besides."""
    return f"""
    CREATE TABLE notes (id BIGINT PRIMARY KEY, note VARCHAR(5000), price DECIMAL(20,2), at DATETIME NOT NULL);
    INSERT INTO notes SELECT seq,
        CASE seq % 7 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN CONCAT('say "', seq, '", twice')
            WHEN 3 THEN CONCAT('two\\nlines 😀 ', seq) ELSE CONCAT(seq, REPEAT(CHAR(97 + seq % 26), {width})) END,
        IF(seq % 5 = 0, NULL, seq * 1.25 - 1000), '2024-01-01 00:00:00' + INTERVAL seq SECOND
    FROM seq_1_to_{rows};
    """


def csv_of(desk: Desk) -> bytes:
    """The file that an export of all notes must be."""
    return (HEADER + desk.mariadb.sql(CSV_BY_SQL, desk.source)).encode()


class BreakableDesk(Desk):
    """A desk with alice and a table of notes, and workers that break."""

    @property
    def marks(self) -> Path:
        folder = self.var / "marks"
        folder.mkdir(exist_ok=True)
        return folder

    def furnish(self, rows: int, width: int = 20) -> None:
        self.mariadb.sql(table(rows, width), self.source)
        self.manage("migrate", "-v0")
        self.add_user("alice", email="alice@example.com")

    def ask_for(self, exports: Mapping[str, str]) -> dict[str, str]:
        """Asks, as alice, for all of a dataset for each name; gives the exports' ids."""
        code = f"""
import json
from django.contrib.auth.models import User
from exportapp import datasets, lifecycle
from exportapp.engine.specs import Recipe
alice, ids = User.objects.get(username="alice"), {{}}
for name, wanted in {dict(exports)!r}.items():
    dataset = datasets.catalogue().datasets[wanted]
    recipe = Recipe(wanted, tuple(column.name for column in dataset.columns))
    ids[name] = str(lifecycle.request(alice, dataset, recipe, request_key=name, name=name).pk)
print(json.dumps(ids))
"""
        ids: dict[str, str] = json.loads(self.manage("shell", "-v0", "-c", code))
        return ids

    def start_failing_worker(self, signal: str, concurrency: int, name: str = "failing", **env: str) -> None:
        """A worker that gets `signal` ("SIGKILL", "SIGSTOP") where an export's name says."""
        argv: list[str | Path] = [BIN / "celery", "-A", "tests.faults.failing", "worker"]
        argv += ["-c", str(concurrency), "-n", f"{name}@%h"]
        argv += ["--without-heartbeat", "--without-gossip", "--without-mingle", "-O", "fair", "-l", "INFO"]
        env |= {"EXPORTAPP_FAULTS": str(self.marks), "EXPORTAPP_FAULT_SIGNAL": signal}
        self.processes.start(name, argv, **env)
        wait_until(lambda: "ready." in self.processes.log(name), 30, "the failing worker")

    def broken(self) -> dict[str, int]:
        """The points that somebody has come to, and the process ids of those."""
        return {mark.name: int(mark.read_text()) for mark in self.marks.iterdir() if not mark.name.startswith(".")}

    def over(self) -> set[str]:
        """The points whose frozen process went on, and is done with its step."""
        return {mark.name.removeprefix(".over ") for mark in self.marks.glob(".over *")}

    def wait_for_end(self, timeout: float = 90) -> None:
        """Until no step is left and what ended exports left over is tidied away."""
        wait_until(lambda: not self.ask(NOBODY_WORKS) and not self.ask(UNTIDY), timeout, "the end of all exports", 0.3)

    def one(self, name: str, columns: str) -> list[str]:
        """Columns of the export of that name."""
        [row] = self.ask(f"SELECT {columns} FROM exportapp_export WHERE name = '{name}'")
        return row

    def steps(self, name: str, columns: str, where: str = "TRUE") -> list[list[str]]:
        """Columns of the steps of the export of that name."""
        return self.ask(
            f"SELECT {columns} FROM exportapp_step WHERE export_id = "
            f"(SELECT id FROM exportapp_export WHERE name = '{name}') AND {where} ORDER BY position, id"
        )

    def events(self, name: str) -> Counter[str]:
        """How many events of each kind the export of that name has."""
        kinds = self.ask(
            "SELECT kind FROM exportapp_event WHERE export_id = "
            f"(SELECT id FROM exportapp_export WHERE name = '{name}')"
        )
        return Counter(kind for [kind] in kinds)

    def published(self) -> set[str]:
        """The names of all files that ready exports offer."""
        return {name for [name] in self.ask("SELECT file_name FROM exportapp_export WHERE state = 'ready'")}


def files_below(folder: Path) -> set[str]:
    """Every file in a local store, unfinished ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def s3_env(server: S3Server, bucket: str) -> dict[str, str]:
    """The environment of a desk that stores in this bucket, in the folder "desk"."""
    return {
        "EXPORTAPP_STORAGE_URL": f"s3://{bucket}/desk",
        "EXPORTAPP_S3_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": REGION,
    }


def objects_in(server: S3Server, bucket: str) -> set[str]:
    """Every object of a desk's bucket, and every upload that is still open."""
    uploads = server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return {key.removeprefix("desk/") for key in [*server.keys(bucket), *(f"open: {one['Key']}" for one in uploads)]}


def mails_about(mailserver: MailServer, names: Iterable[str]) -> dict[str, list[str]]:
    """The Message-IDs of the mails that say that an export is ready, by the export's name."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for mail in list(mailserver.messages):
        found[str(mail["Subject"]).removeprefix("Ready: ")].append(str(mail["Message-ID"]))
    return found
