"""Every page and state, light and dark, wide and as a phone shows it: axe finds nothing, the policy is kept, nothing is
asked of another host, and nothing is wider than the phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.journeys.axe import findings
from tests.journeys.gallery import PAGES, WIDTHS, Seen, resize, visiting
from tests.journeys.staged import Staged


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("seen", PAGES, ids=[seen.name for seen in PAGES])
def test_page_keeps_nobody_out_and_keeps_to_its_host(browser: Browser, staged: Staged, seen: Seen, scheme: str) -> None:
    with visiting(browser, staged, seen, scheme) as visit:
        found: list[str] = []
        for width in WIDTHS:
            resize(visit.page, width)
            found += [f"{width} px: {one}" for one in findings(visit.page)]
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        if wide > 390:
            found.append(f"390 px: the page is {wide} px wide")
        found += visit.complaints()
        found += [f"left the host: {url}" for url in visit.strangers()]
        assert not found, "\n".join(found)


def test_what_breaks_the_policy_or_keeps_people_out_would_be_seen(browser: Browser, staged: Staged) -> None:
    with visiting(browser, staged, PAGES[0]) as visit:
        assert visit.complaints() == visit.strangers() == findings(visit.page) == []
        visit.page.evaluate(
            """document.querySelector("main").insertAdjacentHTML("beforeend",
               '<p style="color: #eee">faint</p><img src="http://elsewhere.example.com/a.png">')"""
        )
        visit.page.wait_for_function("window.violations.length >= 2")
        told = " ".join(visit.complaints())
        assert "style-src-attr" in told
        assert "http://elsewhere.example.com/a.png" in told
        assert any(one.startswith("image-alt (critical)") for one in findings(visit.page))
