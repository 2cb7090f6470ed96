"""The operators' pages: everything can be read and found, nothing edited, and what acts goes through the lifecycle."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from exportapp import lifecycle
from exportapp.engine.errors import ExportError
from exportapp.models import Event, Export, ExportState, PersonAttribute, Process, Step, StepKind
from exportapp.origins import process_name
from exportapp.processes import sign_of_life
from tests.pages import read
from tests.scenes import HOSTILE, ask, browser, everything, finish, held, in_state, piece, take

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODELS: list[type[Model]] = [Export, Step, Event, Process]
ACTIONS = ["cancel_exports", "retry_exports", "expire_exports", "mail_again"]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def address(row: type[Model] | Model, page: str = "") -> str:
    model = row if isinstance(row, type) else type(row)
    place = f"/admin/exportapp/{model._meta.model_name}/"
    return place + (page if isinstance(row, type) else f"{row.pk}/{page or 'change/'}")


@pytest.fixture
def roots(root: User) -> Client:
    """A browser in which root is signed in."""
    return browser(root)


@pytest.fixture
def life(alice: User, bob: User) -> None:
    """A desk in full life: exports in every state, steps of every kind, events, processes."""
    for state in ExportState.values:
        in_state(alice, state, name=f"{state} of alice")
    step = held(StepKind.CHUNK, bob, parts=2)
    lifecycle.finish_chunk(step, piece(4, (7,)))
    while step.kind != StepKind.NOTIFY:
        finish(step := take())
    sign_of_life("dispatcher", {"broker": "reachable", "waiting": 3})
    sign_of_life("worker", {"steps": 1})


@pytest.fixture
def operator(person: Callable[..., User]) -> Callable[..., Client]:
    """A browser of somebody on the staff with these rights on exports."""

    def make(*rights: str) -> Client:
        made = person(f"operator {' '.join(rights)}", is_staff=True)
        made.user_permissions.set(Permission.objects.filter(codename__in=rights))
        return browser(made)

    return make


# --- reading ----------------------------------------------------------------------------------------------------------


@each_model
def test_every_list_and_every_row_can_be_read(roots: Client, life: None, model: type[Model]) -> None:
    rows = list(model._default_manager.all())
    assert rows
    page = read(roots.get(address(model)).content)
    assert len(page.one("table", id="result_list").one("tbody").all("tr")) == len(rows)
    for row in rows:
        assert roots.get(address(row)).status_code == 200


@each_model
def test_every_list_can_be_searched_for_anything(roots: Client, life: None, model: type[Model]) -> None:
    for words in ("alice", "worker", "%", "' OR 1=1 --", "12", "not-a-uuid", "\x00"):
        assert roots.get(address(model), {"q": words}).status_code == 200, words


def found(client: Client, model: type[Model], **query: str) -> int:
    response = client.get(address(model), query)
    assert response.status_code == 200
    tables = read(response.content).all("table", id="result_list")
    return len(tables[0].one("tbody").all("tr")) if tables else 0


def test_exports_are_found_by_what_operators_know_of_them(roots: Client, life: None) -> None:
    export = Export.objects.filter(state=ExportState.FAILED).get()
    for words in (str(export.pk), "failed of alice", "gone"):
        assert found(roots, Export, q=words) == 1, words
    assert found(roots, Export, q="alice") == found(roots, Export, q="alice@example.com") == 6
    assert found(roots, Export, q="nobody") == 0
    assert found(roots, Export, state="failed") == 1
    assert found(roots, Export, dataset="orders") == 7
    assert found(roots, Export, dataset="products") == 0
    assert found(roots, Step, q=str(export.pk)) == 1
    assert found(roots, Step, kind="chunk", state="done") == 3
    assert found(roots, Event, q=str(export.pk)) == 1
    assert found(roots, Event, kind="ready") == 1
    assert found(roots, Process, kind="worker") == 1
    year = str(export.created_at.year)
    assert found(roots, Export, created_at__year=year) == 7


def test_length_of_a_list_does_not_change_its_number_of_queries(roots: Client, alice: User) -> None:
    def queries(model: type[Model]) -> int:
        with CaptureQueriesContext(connection) as seen:
            found(roots, model)
        return len(seen)

    held(StepKind.CHUNK, alice)
    sign_of_life("worker", {"steps": 1})
    few = [queries(model) for model in MODELS]
    for number in range(60):
        ask(alice)
        Process.objects.create(name=f"worker {number}", kind="worker", started_at=NOON, seen_at=NOON)
    assert [queries(model) for model in MODELS] == few


def test_list_of_exports_says_how_far_they_are_what_they_wait_for_and_who_has_them(roots: Client, alice: User) -> None:
    step = held(StepKind.CHUNK, alice, parts=4)
    lifecycle.beat(step, 4, 400)
    other = take("elsewhere#ab12cd:77")
    page = read(roots.get(address(Export)).content).one("table", id="result_list")
    [row] = page.one("tbody").all("tr")
    cells = {
        cell.attributes["class"].removeprefix("field-").split()[0]: cell.text
        for cell in row.children
        if cell.tag in ("td", "th")
    }
    assert cells["progress"] == "10 % of 40"
    assert (cells["rows"], cells["worker"], cells["waits"]) == ("4", "2 workers", "0 s")
    lifecycle.fail_step(step, ExportError("The database is away."))
    lifecycle.fail_step(other, ExportError("The database is away."))
    Step.objects.filter(state="waiting").update(not_before=lifecycle.now() + timedelta(seconds=30))
    row = read(roots.get(address(Export)).content).one("table", id="result_list").one("tbody").one("tr")
    waits = row.one("td", cls="field-waits").one("span")
    assert waits.text in ("again in 29 s", "again in 30 s")
    assert waits.attributes["title"] == "The database is away."


def test_page_of_an_export_shows_steps_with_their_errors_and_events_with_their_origin(
    roots: Client, alice: User
) -> None:
    step = held(StepKind.CHUNK, alice, parts=2)
    lifecycle.fail_step(step, ExportError("The database is away.", detail="(2003, 'db7')"))
    page = read(roots.get(address(step.export)).content)
    steps, events = page.one("div", id="steps-group"), page.one("div", id="events-group")
    assert "The database is away. [(2003, 'db7')]" in steps.text
    assert steps.all("a", href=f"/admin/exportapp/event/?step={step.pk}")
    assert found(roots, Event, step=str(step.pk)) == 1
    assert events.all("td", cls="field-origin")[0].text == process_name()
    assert "(2003, 'db7')" in read(roots.get(address(step)).content).text


def test_page_of_an_export_with_many_steps_shows_the_first_and_leads_to_all(roots: Client, alice: User) -> None:
    export = ask(alice)
    Step.objects.bulk_create(Step(export=export, kind=StepKind.CHUNK, not_before=NOON) for _ in range(300))
    with CaptureQueriesContext(connection) as seen:
        page = read(roots.get(address(export)).content)
    assert len(seen) < 25
    assert len(page.one("div", id="steps-group").one("tbody").all("tr")) == 200
    [more] = page.all("p", cls="more")
    assert "the first 200" in more.text
    assert "301 found" not in more.text
    assert roots.get(more.one("a").attributes["href"]).context["cl"].result_count == 301


def test_nothing_on_the_pages_is_inline(roots: Client, life: None) -> None:
    export = Export.objects.filter(state=ExportState.READY)[0]
    for place in (address(Export), address(export), address(Step), address(Event), address(Process)):
        for one in read(roots.get(place).content).walk():
            assert one.tag != "style", place
            assert "style" not in one.attributes, place
            assert one.tag != "script" or "src" in one.attributes, place


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_text(roots: Client, alice: User, name: str) -> None:
    export = in_state(alice, ExportState.READY, name=name)
    for place in (address(Export), address(export), address(Step), address(Event)):
        html = roots.get(place).content.decode()
        assert "<script>alert(1)" not in html
        assert "<img src=x" not in html
        assert " ".join(escape(name).split()) in " ".join(html.split())


# --- changing nothing -------------------------------------------------------------------------------------------------


@each_model
def test_nothing_can_be_added_changed_or_deleted_even_by_a_superuser(
    roots: Client, life: None, model: type[Model]
) -> None:
    row = model._default_manager.all()[0]
    processes = list(Process.objects.values())
    before = everything()
    data = {"name": "mine", "state": "ready", "kind": "x", "text": "y", "_save": "Save"}
    assert roots.get(address(model, "add/")).status_code == 403
    assert roots.post(address(model, "add/"), data).status_code == 403
    assert roots.post(address(row), data).status_code == 403
    assert roots.get(address(row, "delete/")).status_code == 403
    assert roots.post(address(row, "delete/"), {"post": "yes"}).status_code == 403
    act = {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"}
    assert roots.post(address(model), act).status_code in (200, 302, 403)
    assert everything() == before
    assert list(Process.objects.values()) == processes
    page = read(roots.get(address(row)).content).one("main")
    assert [one for one in page.all("input") if one.attributes.get("type") != "hidden"] == []
    assert page.all("select") == page.all("textarea") == []


# --- acting -----------------------------------------------------------------------------------------------------------


def act(client: Client, action: str, *exports: Export) -> list[str]:
    """Does an action on exports, and gives what the page says about it."""
    chosen = {"action": action, "_selected_action": [str(export.pk) for export in exports]}
    page = read(client.post(address(Export), chosen, follow=True).content)
    return [item.text for part in page.all("ul", cls="messagelist") for item in part.all("li")]


def test_cancel_ends_what_is_unfinished_and_says_who_did_it(roots: Client, root: User, alice: User) -> None:
    exports = [in_state(alice, state) for state in ExportState.values]
    assert act(roots, "cancel_exports", *exports) == ["Cancelled 2 of 6; the others had ended already."]
    for export in exports:
        was_unfinished = export.unfinished
        export.refresh_from_db()
        events = export.events.filter(kind="cancelled")
        assert [(event.actor, event.text) for event in events] == [(root, "Cancelled by root")] * was_unfinished
    assert Export.objects.filter(state=ExportState.CANCELLED).count() == 3


def test_retry_asks_again_for_the_same_owner(roots: Client, root: User, alice: User) -> None:
    export = in_state(alice, ExportState.FAILED, name="January")
    assert act(roots, "retry_exports", export) == ["January was asked for again."]
    again = Export.objects.exclude(pk=export.pk).get()
    assert (again.owner, again.parent, again.state) == (alice, export, ExportState.QUEUED)
    assert again.events.get().actor == root
    assert act(roots, "retry_exports", export) == ["January was asked for again."]
    assert Export.objects.count() == 2, "one that is under way is enough"


def test_retry_that_cannot_be_says_why_and_tries_the_others(roots: Client, alice: User, bob: User) -> None:
    alices, bobs = in_state(alice, ExportState.FAILED, name="A"), in_state(bob, ExportState.FAILED, name="B")
    alice.groups.clear()
    assert sorted(act(roots, "retry_exports", alices, bobs)) == [
        "A: You may not export Orders.", "B was asked for again.",
    ]  # fmt: skip
    assert bobs.reruns.count() == 1


@pytest.mark.parametrize("action", ACTIONS)
def test_who_may_only_look_may_not_act(operator: Callable[..., Client], alice: User, action: str) -> None:
    export = ask(alice, name="January") if action == "cancel_exports" else mailed(alice, "January")
    before = everything()
    watching = operator("view_export")
    page = read(watching.get(address(Export)).content)
    assert "January" in page.text
    assert not page.all("select", name="action")
    assert not read(watching.get(address(export)).content).all("form", cls="acts")
    act(watching, action, export)
    assert everything() == before
    acting = operator("view_export", "change_export")
    choices = read(acting.get(address(Export)).content).one("select", name="action").all("option")
    assert [one.attributes["value"] for one in choices] == ["", *ACTIONS]
    act(acting, action, export)
    assert everything() != before


def mailed(owner: User, name: str = "") -> Export:
    """A ready export whose owner was told."""
    step = held(StepKind.NOTIFY, owner)
    finish(step)
    Export.objects.filter(pk=step.export_id).update(name=name)
    return Export.objects.get(pk=step.export_id)


def test_expire_takes_the_file_of_ready_exports_and_says_who_did_it(roots: Client, root: User, alice: User) -> None:
    exports = [in_state(alice, state) for state in ExportState.values]
    assert act(roots, "expire_exports", *exports) == ["Expired 1 of 6; the others have no file."]
    for export in exports:
        was_ready = export.state == ExportState.READY
        export.refresh_from_db()
        assert export.events.filter(actor=root).count() == was_ready
        assert not (was_ready and (export.state != ExportState.EXPIRED or export.tidied)), "its file is to be deleted"


def test_mail_is_sent_again_for_what_has_ended_and_was_told(roots: Client, root: User, alice: User) -> None:
    told, untold = mailed(alice), in_state(alice, ExportState.READY)
    others = "the others have no mail that was sent or given up"
    assert act(roots, "mail_again", told, untold) == [f"Mail asked for again: 1 of 2; {others}."]
    event = told.events.get(kind="mail again")
    assert (event.actor, event.text) == (root, "Mail asked for again by root")
    assert event.origin == "web 127.0.0.1"
    assert act(roots, "mail_again", told) == [f"Mail asked for again: 0 of 1; {others}."], "one is on its way"
    step = take()
    assert (step.kind, step) == (StepKind.NOTIFY, event.step)
    finish(step)
    assert told.events.filter(kind="mailed").count() == 2


def test_buttons_on_an_exports_page_are_what_can_be_done_and_lead_back_to_it(roots: Client, alice: User) -> None:
    def buttons(export: Export) -> list[str]:
        return [
            one.text
            for form in read(roots.get(address(export)).content).all("form", cls="acts")
            for one in form.all("button")
        ]

    ready, waiting = mailed(alice), ask(alice)
    assert buttons(waiting) == ["Cancel"]
    assert buttons(ready) == ["Retry", "Expire", "Send mail again"]
    assert buttons(in_state(alice, ExportState.FAILED)) == ["Retry"]
    form = read(roots.get(address(waiting)).content).one("form", cls="acts")
    sent = {**dict(form.sends()), "action": "cancel_exports"}
    response = roots.post(form.attributes["action"], sent, follow=True)
    assert response.redirect_chain == [(address(waiting), 302)]
    assert "Cancelled 1 of 1." in response.content.decode()


def test_page_of_an_export_that_is_not_there_leads_away(roots: Client) -> None:
    assert roots.get("/admin/exportapp/export/12/change/").status_code == 302


# --- who gets in ------------------------------------------------------------------------------------------------------


@each_model
def test_staff_without_a_right_sees_nothing(operator: Callable[..., Client], life: None, model: type[Model]) -> None:
    client = operator()
    index = client.get("/admin/")
    assert index.status_code == 200
    assert f"/admin/exportapp/{model._meta.model_name}/" not in index.content.decode()
    row = model._default_manager.all()[0]
    for place in (address(model), address(row), address(row, "history/")):
        assert client.get(place).status_code == 403, place


@each_model
def test_ordinary_people_are_sent_to_sign_in(alice: User, life: None, model: type[Model]) -> None:
    row = model._default_manager.all()[0]
    for place in ("/admin/", address(model), address(row)):
        response = browser(alice).get(place)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")


# --- signs of life and facts ------------------------------------------------------------------------------------------


def test_signs_of_life_say_who_is_there_and_how_the_broker_is(roots: Client, life: None) -> None:
    Process.objects.filter(kind="worker").update(seen_at=lifecycle.now() - timedelta(minutes=5))
    rows = read(roots.get(address(Process)).content).one("table", id="result_list").one("tbody").all("tr")
    worker, dispatcher = sorted(rows, key=lambda row: "dispatcher" in row.text)
    assert "broker: reachable, waiting: 3" in dispatcher.text
    assert "0 s ago" in dispatcher.text
    assert dispatcher.one("img").attributes["alt"] == "True"
    assert "steps: 1" in worker.text
    assert "5 min ago" in worker.text
    assert worker.one("img").attributes["alt"] == "False"


def test_facts_for_row_rules_are_edited_beside_the_person(roots: Client, alice: User) -> None:
    PersonAttribute.objects.create(person=alice, name="country", value="DE")
    place = f"/admin/auth/user/{alice.pk}/change/"
    form = read(roots.get(place).content).one("form", id="user_form")
    sent = dict(form.sends())
    assert (sent["export_attributes-0-name"], sent["export_attributes-0-value"]) == ("country", "DE")
    sent["export_attributes-0-value"] = "FR"
    changed = {name: value for name, value in sent.items() if not name.startswith(("_", "groups", "user_permissions"))}
    response = roots.post(place, {**changed, "_save": "Save"})
    assert response.status_code == 302, response.content.decode()[:3000]
    assert [one.value for one in alice.export_attributes.all()] == ["FR"]
