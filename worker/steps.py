"""What each kind of step does: plain functions that read, write files and call the lifecycle with what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError

from exportapp import datasets, lifecycle, notifications, receipts, storage
from exportapp.celery import draining
from exportapp.engine.assemble import join_pieces
from exportapp.engine.encoders import FORMATS
from exportapp.engine.errors import ExportError, Interrupted, LeaseLost
from exportapp.engine.readers import open_reader
from exportapp.engine.specs import ChunkSpec, FileResult, KeyRange, PieceResult, Recipe, from_json
from exportapp.models import Export, ExportState, Step, StepKind, StepState
from exportapp.orphans import comment_for
from worker.heart import Pulse
from worker.runners import run_here


def plan(step: Step, pulse: Pulse) -> None:
    """Cuts the export into coarse key ranges."""
    with open_reader(datasets.source_url(step.export)) as reader:
        pulse.reading(reader)
        made = reader.plan(step.export.query, settings.CHUNK_ROWS, comment_for(step))
    if _whole(step.export.recipe):
        made = replace(made, ranges=(KeyRange(),))
    lifecycle.finish_plan(step, made)


def _whole(recipe: Recipe) -> bool:
    """Whether one statement is to read all rows."""
    return recipe.consistency == "snapshot" or not FORMATS[recipe.format].joins


def chunk(step: Step, pulse: Pulse) -> None:
    """Reads a key range into a piece."""
    storage.check_room()
    recipe = step.export.recipe
    dataset = datasets.thaw(step.export.definition)

    def progress(rows: int, size: int) -> None:
        pulse.progress(rows, size)
        storage.check_room()
        if sentence := lifecycle.too_much(dataset, rows, size):
            raise ExportError(sentence, permanent=True)

    spec = ChunkSpec(
        query=step.export.query,
        range=step.key_range,
        format=recipe.format,
        compression=recipe.compression,
        name=storage.piece_name(step),
        first=step.position == 0,
        comment=comment_for(step),
        seconds=settings.CHUNK_SECONDS,
        options=recipe.options,
        zone=recipe.zone,
        whole=_whole(recipe),
    )
    piece = run_here(
        spec,
        datasets.source_url(step.export),
        storage.store_url(),
        reading=pulse.reading,
        stopping=draining,
        progress=progress,
    )
    with _taken_along(step, spec.name):
        pulse.check()
        lifecycle.finish_chunk(step, piece)


def assemble(step: Step, pulse: Pulse) -> None:
    """Joins the pieces into the file, and publishes it."""
    storage.check_room()
    chunks = list(step.export.steps.filter(kind=StepKind.CHUNK, state=StepState.DONE).order_by("position", "pk"))
    pieces = [from_json(PieceResult, done.result) for done in chunks]
    name = storage.file_name(step)

    def progress(size: int) -> None:
        pulse.progress(0, size)
        storage.check_room()
        if draining():
            raise Interrupted

    file = join_pieces(pieces, name, storage.store(), progress=progress)
    with _taken_along(step, name):
        pulse.check()
        lifecycle.make_ready(step, file, _checked(_receipt(step.export, chunks, pieces, file), name))


@contextmanager
def _taken_along(step: Step, name: str) -> Iterator[None]:
    """What was written goes with who lost the step: after a long freeze its export has been tidied, once and for all."""
    try:
        yield
    except LeaseLost:
        if step.kind == StepKind.CHUNK or not lifecycle.is_published(step.export, name):
            storage.store().delete(name)
        raise


def notify(step: Step, pulse: Pulse) -> None:
    """Mails the owner about the outcome."""
    export = step.export
    if not (export.owner.is_active and export.owner.email):
        lifecycle.finish_notify(step, "No mail: the account is closed or has no address")
        return
    # A mail cannot be taken back: whoever was frozen since the claim asks the database, not a clock that began after it.
    if not lifecycle.beat(step, 0, 0):
        raise LeaseLost
    ready = export.state in (ExportState.READY, ExportState.EXPIRED)
    (notifications.export_ready if ready else notifications.export_failed)(export)
    _note_as_sent(step, pulse)


def _note_as_sent(step: Step, pulse: Pulse) -> None:
    """Says it until the database hears it or the step is somebody else's: what is not noted is mailed again."""
    while True:
        try:
            return lifecycle.finish_notify(step, "The mail was sent")
        except DatabaseError:
            pulse.check()
            time.sleep(1)


def _receipt(export: Export, chunks: list[Step], pieces: list[PieceResult], file: FileResult) -> dict[str, Any]:
    began = export.started_at.isoformat() if export.started_at else ""
    ended = max(done.finished_at for done in chunks if done.finished_at).isoformat()
    made = receipts.receipt(
        export.recipe,
        pieces,
        file,
        read_from=began,
        read_until=ended,
        user=export.owner.get_username(),
        rule=datasets.thaw(export.definition).row_rule,
    )
    return {"export": str(export.pk), **made}


def _checked(receipt: dict[str, Any], name: str) -> dict[str, Any]:
    """The receipt, if its parts make up the whole and the file in the store is as long as it says."""
    found = receipts.contradictions(receipts.claims(receipt))
    if (size := storage.store().size(name)) != receipt["bytes"]:
        found.append(f"{size} of {receipt['bytes']} bytes are in the store")
    if found:
        raise ExportError("The file is not what was read. It is made anew.", detail=" ".join(found))
    return receipt


STEPS: dict[str, Callable[[Step, Pulse], None]] = {
    StepKind.PLAN: plan,
    StepKind.CHUNK: chunk,
    StepKind.ASSEMBLE: assemble,
    StepKind.NOTIFY: notify,
}
