"""The people of a campaign: each fills forms, looks at pages and cancels, by HTTP alone, and keeps a log of every answer.

An answer that never came, or came from a server in trouble, is unknown: the same form is sent again until one is known.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.journeys.visitor import Answer, Visitor
from tests.oracles.deliveries import ENDED, OK, REFUSED, UNKNOWN, Asked, Found, Recipe
from tests.pages import Element, Pairs, changed

T = TypeVar("T")

SIZES = ((1, 9), (50, 8), (1_000, 8), (8_000, 6), (30_000, 4), (100_000, 3), (250_000, 1))  # rows, weight
FORMATS = (
    ("csv", "none"),
    ("csv", "gzip"),
    ("jsonl", "none"),
    ("jsonl", "gzip"),
    ("xlsx", "none"),
    ("parquet", "none"),
)
MOST = {"xlsx": 30_000, "parquet": 100_000}  # rows; the oracle reads a sheet of more for half a minute
CANCELS, TWICE, SNAPSHOTS = 0.12, 0.05, 0.2  # shares
PATIENCE = 300  # seconds, for an answer that is known

TROUBLE = (OSError, http.client.HTTPException)


class NoAnswer(Exception):
    """The desk did not answer, or said that it cannot."""


class Person(threading.Thread):
    """One signed-in person at a desk: what they do depends on the seed, when it works out on the desk."""

    def __init__(self, name: str, address: str, seed: int, *, pause: float, rows: int) -> None:
        super().__init__(name=name, daemon=True)
        self.log: list[Asked] = []
        self.ending = threading.Event()
        self.error: BaseException | None = None
        self._visitor = Visitor(address)
        self._dice = random.Random(f"{seed} {name}")
        self._pause, self._rows = pause, rows
        self._ids: dict[str, str] = {}  # of the exports by their names, as the list shows them

    # --- what they do ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            self._until_known(self.sign_in)
            while not self.ending.wait(self._dice.expovariate(1 / self._pause)):
                self._send()
                self._look()
                if self._dice.random() < CANCELS:
                    self._cancel()
        except BaseException as error:
            self.error = error

    def sign_in(self) -> None:
        try:
            if self._visitor.get("/login/").url.endswith("/login/"):  # else an answer was lost, and we are in
                self._visitor.sign_in(self.name, f"{self.name}-password")
        except (*TROUBLE, AssertionError) as error:
            raise NoAnswer from error

    def _send(self) -> None:
        asked = Asked(self.name, f"{self.name}-{len(self.log):04}", self._recipe())
        pairs = self._until_known(lambda: self._form(asked))
        self.log.append(asked)
        self._until_known(lambda: self._post(asked, pairs))
        if self._dice.random() < TWICE:  # a double click
            self._until_known(lambda: self._post(asked, pairs))

    def _recipe(self) -> Recipe:
        format, compression = self._dice.choice(FORMATS)
        [size] = self._dice.choices([size for size, _ in SIZES], [weight for _, weight in SIZES])
        size = min(size, MOST.get(format, size), self._rows)
        # Few beginnings, and one for the biggest: what was asked for before is compared quickly.
        low = 1 + (self._dice.choice((0, self._rows // 3 // 10 * 10)) if size < self._rows // 4 else 0)
        consistency = "snapshot" if self._dice.random() < SNAPSHOTS else "chunked"
        return Recipe(self._dice.choice(("notes", "pairs")), low, low + size - 1, format, compression, consistency)

    def _form(self, asked: Asked) -> Pairs:
        recipe = asked.recipe
        form = self._page(f"/exports/new/{recipe.dataset}/").one("main").one("form")
        ever = {"start": "2000-01-01", "end": "2100-01-01"} if recipe.dataset == "notes" else {}
        choices: dict[str, str | list[str] | None] = {
            "name": asked.name, "format": recipe.format, "compression": recipe.compression,
            "consistency": recipe.consistency, "header": "names", "exact": "on", "filter_column": "id",
            "filter_op": "between", "filter_low": str(recipe.low), "filter_high": str(recipe.high),
        }  # fmt: skip
        return changed(form.sends(), **choices, **ever)

    def _post(self, asked: Asked, pairs: Pairs) -> None:
        # Noted before it is sent: if nothing comes back the export may be there all the same.
        asked.answers.append(UNKNOWN)
        answer = self._asked(lambda: self._visitor.post(f"/exports/new/{asked.recipe.dataset}/", pairs, follow=False))
        if answer.status == 302 and answer.headers["Location"] == "/exports/":
            asked.answers[-1] = OK
        elif answer.status in (422, 429):
            asked.answers[-1] = REFUSED
        else:
            raise NoAnswer(f"{answer.status} {answer.headers.get('Location')}")

    def _look(self) -> None:
        try:
            self._rows_of(self._page("/exports/"))
        except NoAnswer:
            return

    def _rows_of(self, page: Element) -> list[tuple[str, str, str]]:
        """Name, id and state of each export on a page of the list; what it shows is noted."""
        listed = []
        for row in page.all("tr"):
            if number := row.attributes.get("id", "").removeprefix("export-"):
                name, state = row.one("a", cls="name").text, row.one("span", cls="state").text
                listed.append((name, number, state))
                self._note(name, number, state)
        return listed

    def _note(self, name: str, number: str, state: str) -> None:
        self._ids[name] = number
        for asked in self.log:
            if asked.name == name and asked.seen[-1:] != [state]:
                asked.seen.append(state)

    def _cancel(self) -> None:
        moving = [one for one in self.log if one.name in self._ids and one.seen[-1] not in ENDED and not one.cancels]
        if moving:
            asked = self._dice.choice(moving)
            self._until_known(lambda: self._cancel_one(asked))

    def _cancel_one(self, asked: Asked) -> None:
        path = f"/exports/{self._ids[asked.name]}/"
        forms = [one for one in self._page(path).all("form") if one.attributes.get("action", "").endswith("/cancel")]
        if forms:
            asked.cancels.append(UNKNOWN)
            answer = self._asked(
                lambda: self._visitor.post(forms[0].attributes["action"], forms[0].sends(), follow=False)
            )
            if answer.status != 302:
                raise NoAnswer
            asked.cancels[-1] = OK
        state = self._page(path).all("span", cls="state")[0].text
        if asked.cancels[-1:] == [OK] and state not in ENDED:
            asked.seen.append("Cancelled")  # as we were told; the oracle sees that what follows is something else
        self._note(asked.name, self._ids[asked.name], state)

    # --- how they ask ------------------------------------------------------------------------------------------------

    def _until_known(self, ask: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except NoAnswer:
                if time.monotonic() > deadline:
                    raise
                time.sleep(self._dice.uniform(0.2, 1))

    def _asked(self, send: Callable[[], Answer]) -> Answer:
        try:
            answer = send()
        except TROUBLE as error:
            raise NoAnswer from error
        if answer.status >= 500:
            raise NoAnswer(str(answer.status))
        return answer

    def _page(self, path: str) -> Element:
        answer = self._asked(lambda: self._visitor.get(path))
        if answer.status != 200 or "/login/" in answer.url:
            raise NoAnswer(f"{answer.status} {answer.url}")
        return answer.page

    # --- what they find in the end -----------------------------------------------------------------------------------

    def all_exports(self) -> list[tuple[str, str, str]]:
        """Name, id and state of all that the list shows, page by page."""
        listed, number = [], 1
        while True:
            page = self._until_known(lambda number=number: self._page(f"/exports/?page={number}"))  # type: ignore[misc]
            listed += self._rows_of(page)
            if not page.all("a", id="older"):
                return listed
            number += 1

    def unfinished(self) -> list[str]:
        return [f"{name} is {state}" for name, _, state in self.all_exports() if state not in ENDED]

    def find(self, name: str, number: str, folder: Path) -> Found:
        """An export as its page, its receipt and its file are now; the file is kept in the folder."""
        page = self._until_known(lambda: self._page(f"/exports/{number}/")).one("main")
        state = page.all("span", cls="state")[0].text
        notes = page.all(cls="bad")
        history = page.one("ol", cls="line")
        lines = tuple(item.one("span").text for item in history.all("li"))
        found = Found(self.name, name, number, state, notes[0].text if notes else "", lines)
        if state != "Ready":
            return found
        receipt = self._until_known(lambda: self._got(f"/exports/{number}/receipt.json"))
        file = self._until_known(lambda: self._got(f"/exports/{number}/download"))
        path = folder / number
        path.write_bytes(file.body)
        return Found(
            self.name, name, number, state, "", lines,
            json.loads(receipt.body) if receipt.status == 200 else None, path.read_bytes if file.status == 200 else None,
        )  # fmt: skip

    def _got(self, path: str) -> Answer:
        return self._asked(lambda: self._visitor.get(path))


def id_in(text: str) -> str:
    """The id of the export whose page a mail links to."""
    found = re.search(r"/exports/([0-9a-f-]{36})/", text)
    return found[1] if found else ""
