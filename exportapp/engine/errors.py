"""The errors of an export: each carries a sentence that its owner can read, the rest is for operators."""


class ExportError(Exception):
    """What ends or delays a step.

    `sentence` is shown to the export's owner and names what they can do; `detail` (driver messages, names of
    hosts) is for operators. A `permanent` error fails the export at once, any other is retried with back-off.
    """

    def __init__(self, sentence: str, *, permanent: bool = False, detail: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.permanent = permanent
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.sentence} [{self.detail}]" if self.detail else self.sentence


class LeaseLost(Exception):
    """The step belongs to somebody else by now: stop, and touch nothing but names that carry our own fence."""


class Interrupted(Exception):
    """The process is to end and this piece cannot be handed over half done: the step starts again elsewhere."""
