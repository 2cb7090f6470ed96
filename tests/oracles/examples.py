"""How many examples Hypothesis makes up: few and the same ones each time, or as many random ones as EXAMPLES says."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(few: int) -> settings:
    asked = int(os.environ.get("EXAMPLES", "0"))
    return settings(max_examples=asked or few, derandomize=not asked, deadline=None, database=None, print_blob=True,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
