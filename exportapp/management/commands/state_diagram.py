"""manage.py state_diagram: the states and moves as docs/states.md shows them, written from the lifecycle's table."""

from typing import Any

from django.core.management.base import BaseCommand

from exportapp.lifecycle import EXPORT_MOVES, STEP_MOVES

TITLE = """# States

Written by `manage.py state_diagram` from the table of moves in `exportapp/lifecycle.py`; a test holds both together.
"""


class Command(BaseCommand):
    help = "Prints docs/states.md: manage.py state_diagram > docs/states.md"

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(TITLE)
        self.stdout.write(diagram("An export", EXPORT_MOVES, "queued"))
        self.stdout.write(diagram("A step", STEP_MOVES, "waiting"), ending="")


def diagram(title: str, moves: dict[str, tuple[tuple[str, ...], str]], first: str) -> str:
    """A Mermaid state diagram of a table of moves."""
    arrows = [f"    {before!s} --> {after!s}: {verb}" for verb, (befores, after) in moves.items() for before in befores]
    left = {before for befores, _ in moves.values() for before in befores}
    ends = sorted({str(after) for _, after in moves.values() if after not in left})
    lines = [f"    [*] --> {first}", *arrows, *(f"    {end} --> [*]" for end in ends)]
    return "\n".join([f"## {title}", "", "```mermaid", "stateDiagram-v2", *lines, "```", ""])
