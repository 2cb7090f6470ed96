"""A short campaign: whatever dies, nothing that was accepted is lost, doubled, damaged, or left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import campaign_record
from tests.faults.campaign import Plan, report, run


@pytest.mark.timeout(600)
def test_faults_at_random_moments_lose_double_damage_and_leave_nothing(pytestconfig: pytest.Config) -> None:
    outcome = run(Plan(seed=1, seconds=90, rows=60_000, pause=2.0, fault_pause=1.5))
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():  # type: ignore[union-attr]
        print(f"\n{outcome.line}")
    report(outcome)
    verdict = outcome.verdict
    assert (verdict.lost, verdict.doubled, verdict.bad, verdict.orphans) == ([], [], [], [])
    # It was no idle run: each kind of fault struck, while people asked.
    assert verdict.exports > 10
    assert all(outcome.faults[kind] for kind in ("kills", "freezes", "restarts", "cuts", "mail"))


def test_the_last_lines_stand_in_the_docs_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "faults.md"
    page.write_text(campaign_record.PAGE.read_text().partition(campaign_record.HEAD)[0] + campaign_record.HEAD)
    monkeypatch.setattr(campaign_record, "PAGE", page)
    for seed in range(campaign_record.KEPT + 3):
        campaign_record.write(f"seed={seed}", 600, "local")
    rows = page.read_text().partition(campaign_record.HEAD)[2].splitlines()
    assert len(rows) == campaign_record.KEPT
    assert rows[0].endswith(f"| 10 min | local | `seed={campaign_record.KEPT + 2}` |")
