"""Every page and state that a person can see, as one table; run as a program it makes a picture of each."""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright

from tests.journeys.staged import Staged, staged_desk
from tests.services.base import find_program

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--font-render-hinting=none"]  # fmt: skip
WIDTHS = {1280: 800, 390: 844}
LARGEST = 100_000  # bytes of a picture

Act = Callable[[Page], Response | None]


def submit(button: str, times: int = 1, **typed: str) -> Act:
    """Fills the fields of these names and presses the button, `times` over; gives the last answer."""

    def act(page: Page) -> Response | None:
        answer = None
        for _ in range(times):
            for name, text in typed.items():
                page.locator(f"main [name={name}]").first.fill(text)
            with page.expect_navigation() as gone:
                page.locator("main").get_by_role("button", name=button).last.click()
            answer = gone.value
        return answer

    return act


def without_cookies(button: str) -> Act:
    """Presses a button after the browser has lost its cookies."""

    def act(page: Page) -> Response | None:
        page.context.clear_cookies()
        return submit(button)(page)

    return act


def opened(selector: str) -> Act:
    """Opens what is closed at first."""

    def act(page: Page) -> None:
        page.locator(selector).first.click()

    return act


def press_enter(**typed: str) -> Act:
    def act(page: Page) -> Response | None:
        for name, text in typed.items():
            page.locator(f"main [name={name}]").first.fill(text)
        with page.expect_navigation() as gone:
            page.keyboard.press("Enter")
        return gone.value

    return act


@dataclass(frozen=True)
class Seen:
    """A page in a state: its address, who looks at it ('' is not signed in), what is done there, and what it answers."""

    name: str
    address: str
    person: str = ""
    act: Act | None = None
    status: int = 200


PAGES = [
    Seen("sign-in", "/login/"),
    Seen("sign-in-wrong", "/login/", act=submit("Sign in", username="alice", password="not it")),
    Seen("sign-in-too-often", "/login/", act=submit("Sign in", 11, username="mallory", password="not it"), status=429),
    Seen("password", "/password/", "alice"),
    Seen("password-wrong", "/password/", "bob",
         submit("Change password", old_password="not it", new_password1="short", new_password2="shorter")),
    Seen("password-forgotten", "/password/forgotten/"),
    Seen("password-forgotten-wrong", "/password/forgotten/", act=submit("Send the link", email="nobody")),
    Seen("password-sent", "/password/forgotten/", act=submit("Send the link", email="nobody@example.com")),
    Seen("password-new", "/password/new/{uid}/{word}/"),
    Seen("password-new-wrong", "/password/new/{uid}/{word}/",
         act=submit("Set the password", new_password1="password", new_password2="passwort")),
    Seen("password-new-used", "/password/new/{uid}/used-up/"),

    Seen("datasets", "/exports/new/", "alice"),
    Seen("account-menu", "/exports/new/", "alice", opened(".account summary")),
    Seen("new-export", "/exports/new/orders/", "alice"),
    Seen("new-export-without-time", "/exports/new/products/", "alice"),
    Seen("new-export-edited", "/exports/new/orders/?like={failed}", "alice"),
    Seen("new-export-wrong", "/exports/new/orders/", "alice", press_enter(start="2026-02-30"), 422),

    Seen("my-exports", "/exports/", "alice"),
    Seen("my-exports-empty", "/exports/", "bob"),
    Seen("my-exports-none-found", "/exports/?q=nothing-like-it&state=failed", "alice"),
    Seen("export-queued", "/exports/{queued}/", "alice"),
    Seen("export-counting", "/exports/{counting}/", "alice"),
    Seen("export-running", "/exports/{running}/", "alice"),
    Seen("export-ready", "/exports/{ready}/", "alice"),
    Seen("export-failed", "/exports/{failed}/", "alice"),
    Seen("export-cancelled", "/exports/{cancelled}/", "alice"),
    Seen("export-expired", "/exports/{expired}/", "alice"),
    Seen("export-of-another", "/exports/{ready}/", "operator"),

    Seen("error-403", "/admin/login/", "alice", status=403),
    Seen("error-403-cookies", "/login/", act=without_cookies("Sign in"), status=403),
    Seen("error-404", "/nothing/here/", "alice", status=404),
    Seen("error-410", "/exports/{damaged}/download", "alice", status=410),
    Seen("error-429", "/exports/{expired}/", "alice", submit("Run again"), 429),
    Seen("error-500", "/exports/{broken}/", "operator", status=500),

    Seen("admin", "/admin/", "operator"),
    Seen("admin-exports", "/admin/exportapp/export/", "operator"),
    Seen("admin-export", "/admin/exportapp/export/{running}/change/", "operator"),
    Seen("admin-signs-of-life", "/admin/exportapp/process/", "operator"),
    Seen("admin-users", "/admin/auth/user/", "operator"),
]  # fmt: skip

_visits = itertools.count(1)


@dataclass
class Visit:
    """One page as a browser shows it, and what was said and asked for on the way."""

    page: Page
    desk: Staged
    seen: Seen
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """Whatever broke, and each violation of the page's policy."""
        violations = self.page.evaluate("window.violations")
        return [*self.said, *(f"policy: {one}" for one in violations)]

    def strangers(self) -> list[str]:
        """Requests that left the host."""
        return [url for url in self.asked if not url.startswith((self.desk.address, "blob:", "data:"))]


WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@contextmanager
def visiting(browser: Browser, desk: Staged, seen: Seen, scheme: str = "light") -> Iterator[Visit]:
    """Opens the page in a browser of its own, wide at first, and does there what is to be done."""
    visit_number = next(_visits)
    context = browser.new_context(
        base_url=desk.address,
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
        viewport={"width": 1280, "height": WIDTHS[1280]},
        extra_http_headers={"X-Forwarded-For": f"10.0.{visit_number // 250}.{visit_number % 250}"},
    )
    try:
        context.add_init_script(WATCH)
        _sign_in(context, desk, seen.person)
        visit = Visit(context.new_page(), desk, seen)
        _watch(visit)
        desk.make_young()
        answer = visit.page.goto(seen.address.format(**desk.words))
        if seen.act:
            answer = seen.act(visit.page) or answer
        assert answer is not None
        assert answer.status == seen.status, f"{seen.name}: {answer.status}"
        visit.page.wait_for_load_state("networkidle")
        yield visit
    finally:
        context.close()


def _sign_in(context: BrowserContext, desk: Staged, person: str) -> None:
    if person:
        context.add_cookies([{"name": "sessionid", "value": desk.sessions[person], "url": desk.address}])


def _watch(visit: Visit) -> None:
    page, status = visit.page, visit.seen.status
    page.on("request", lambda request: visit.asked.append(request.url))
    page.on("pageerror", lambda error: visit.said.append(str(error)))
    # Chromium calls it an error when a page is the answer that it is to be.
    page.on("console", lambda message: visit.said.append(message.text)
            if message.type in ("error", "warning") and f"status of {status}" not in message.text else None)  # fmt: skip


def resize(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": WIDTHS[width]})
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium", "chromium"), args=FLAGS)
        yield browser
        browser.close()


# --- pictures ---------------------------------------------------------------------------------------------------------


def picture(page: Page) -> Image.Image:
    """The whole page, in few colours."""
    # As a browser of its height shows it, or what sticks to the lower edge would stand in the middle.
    width, height = page.evaluate("[innerWidth, Math.max(innerHeight, document.documentElement.scrollHeight)]")
    page.set_viewport_size({"width": width, "height": height})
    shot = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide")))
    return shot.convert("RGB").quantize(256, dither=Image.Dither.NONE).convert("RGB")


def keep(image: Image.Image, path: Path) -> bool:
    """Writes the picture, unless the one that is there looks just the same."""
    if path.exists():
        with Image.open(path) as before:
            if before.size == image.size and before.convert("RGB").tobytes() == image.tobytes():
                return False
    for quality in (None, 85, 70, 50, 30):  # exact if it is small enough
        image.save(path, lossless=quality is None, quality=quality or 100, method=4)
        if path.stat().st_size <= LARGEST:
            return True
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a picture of every page, wide and as a phone shows it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="pages whose name holds this")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--port", type=int, default=18_000, help="of the desk, which some pages show")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as var, staged_desk(Path(var), asked.port) as desk, chromium() as browser:
        for seen in PAGES:
            if asked.only not in seen.name:
                continue
            with visiting(browser, desk, seen, "dark" if asked.dark else "light") as visit:
                for width in WIDTHS:
                    resize(visit.page, width)
                    path = asked.folder / f"{seen.name}-{width}.webp"
                    new = keep(picture(visit.page), path)
                    print(f"{path}  {path.stat().st_size / 1000:.0f} kB{'' if new else ', as before'}", flush=True)


if __name__ == "__main__":
    main()
