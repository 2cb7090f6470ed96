"""axe-core, which looks for what keeps people from using a page. It comes with a package, so that nothing of it is ours."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from playwright.sync_api import Page


@cache
def _source() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def findings(page: Page) -> list[str]:
    """What axe finds on the page as it stands, a line for each element."""
    page.evaluate(_source())  # by the browser's debugger, whom the page's policy does not bind
    # It is not to load style sheets anew: it puts them into the page as text, which the policy forbids and we would report.
    result = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
    return [
        f"{one['id']} ({one['impact']}): {' '.join(node['target'][0].split()) if node['target'] else '?'}: "
        + " ".join(node["failureSummary"].split())
        for one in result["violations"]
        for node in one["nodes"]
    ]
