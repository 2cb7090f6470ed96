"""The drawn states are those of the table."""

from pathlib import Path

from django.core.management import call_command

ROOT = Path(__file__).resolve().parent.parent


def test_diagram_in_the_docs_is_the_lifecycles_table(capsys) -> None:  # type: ignore[no-untyped-def]
    call_command("state_diagram")
    assert capsys.readouterr().out == (ROOT / "docs/states.md").read_text()
