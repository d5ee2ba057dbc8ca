"""`cockpit deletions plan | show | apply | verify | mend | move | log`. Imports what it needs when a command runs."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cockpit_source.command_options import AsJson, Database, Dataset, Destination, Project, enter_project
from cockpit_source.errors import EXIT_SOME_NOT_READ, ConfigurationError, DeletionRefused

if TYPE_CHECKING:
    import dlt

    from cockpit_source.deletions.approval import Approval
    from cockpit_source.deletions.records import Plan
    from cockpit_source.deletions.session import Session

deletions_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Plan, review and carry out the deletions of customers and reseller relationships. Off until enabled; they "
    "cannot be undone.",
    epilog="In this order: plan, show, apply, verify, log. What each does, and every refusal: docs/deletions.md.",
)

PlanId = Annotated[str | None, typer.Argument(help="Id of the plan; by default the latest.", show_default=False)]


@deletions_app.command(epilog="Example: cockpit deletions plan --query offboard.sql")
def plan(
    query: Annotated[
        Path | None,
        typer.Option(help="File with one SELECT on the tables of the inventory.", show_default=False),
    ] = None,
    named: Annotated[
        str | None,
        typer.Option(help="A query that comes with the package; without either option all are listed."),
    ] = None,
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Make a plan from a query: gather the evidence, check every guard, store it. Changes nothing in CloudCockpit.

    The query gives action (delete_customer or remove_reseller_relationship), customer_id, provider_instance_id (of a
    relationship) and reason. When it selects nothing there is nothing to do, and no plan is stored.

    Exit codes: 0 planned or nothing to do, 2 configuration or usage, 4 refused, 5 sign-in refused, 6 in use.
    """
    if (query is None) == (named is None):
        raise ConfigurationError(_explain_queries())
    pipeline = _open_pipeline(project, database, destination, dataset)
    from cockpit_source.deletions.planner import make_plan
    from cockpit_source.deletions.report import plan_to_json, print_summary
    from cockpit_source.deletions.selection import named_query, read_query
    from cockpit_source.report import create_console

    console = create_console()
    with _refusals_as_json(as_json):
        chosen = named_query(named) if named is not None else read_query(query)  # type: ignore[arg-type]
        with _open_session(pipeline) as session:
            made = make_plan(session, chosen)
    if as_json:
        console.print_json(data=plan_to_json(made))
    elif made is None:
        console.print(f"Nothing to do: the query {chosen.name} selects nothing. No plan was stored.", soft_wrap=True)
    else:
        print_summary(made, None, console)
        option = "" if project is None else f" --project {project}"
        console.print(
            "\nNothing was sent. The evidence and the hash, and how to carry it out:\n"
            f"  cockpit deletions show {made.plan_id}{option}\n  cockpit deletions apply {made.plan_id}{option}",
            markup=False,
            soft_wrap=True,
        )


@deletions_app.command(epilog="Example: cockpit deletions show --json > plan.json")
def show(
    plan_id: PlanId = None,
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Show a plan, its evidence and what became of it. Calls no API and changes nothing."""
    pipeline = _open_pipeline(project, database, destination, dataset)
    from cockpit_source.configuration import project_folder
    from cockpit_source.deletions.history import History
    from cockpit_source.deletions.ledger import open_ledger
    from cockpit_source.deletions.report import plan_to_json, print_plan, stored_plan
    from cockpit_source.report import create_console

    with _refusals_as_json(as_json):
        with open_ledger(pipeline, project_folder(), read_only=True) as ledger:
            _warn_of_difference(ledger.difference)
            history = History(ledger.records)
        course = history.latest if plan_id is None else history.plans.get(plan_id)
        if course is None:
            which = "no plan yet" if plan_id is None else f"no plan {plan_id}"
            raise DeletionRefused("no_plan", f"The ledger holds {which}. `cockpit deletions log` lists them.")
        shown = stored_plan(course)
    if as_json:
        create_console().print_json(data=plan_to_json(shown, course))
    else:
        print_plan(shown, course, create_console(), now=datetime.now(UTC))


@deletions_app.command(
    epilog="Examples: cockpit deletions apply 20261124T090000Z-0a1b2c3d, where nobody watches with "
    '--hash "$PLAN_HASH" --approved-by "change 4711".'
)
def apply(
    plan_id: Annotated[str, typer.Argument(help="Id of the plan.")],
    plan_hash: Annotated[
        str | None, typer.Option("--hash", help="The whole hash of the plan, instead of typing the words.")
    ] = None,
    approved_by: Annotated[str | None, typer.Option(help="Who approved it; goes with --hash.")] = None,
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Carry out a plan, one deletion at a time, after every guard has been checked again. This cannot be undone.

    At a terminal it asks for words and the beginning of the hash; unattended it needs --approved-by and --hash, all
    64 characters of it.

    Exit codes: 0 all gone, 2 configuration or usage, 3 some failed, unknown or not seen to be gone, 4 refused, 5
    sign-in refused, 6 in use.
    """
    if (plan_hash is None) != (approved_by is None):
        raise ConfigurationError("--hash and --approved-by go together, for a run that nobody watches.")
    pipeline = _open_pipeline(project, database, destination, dataset)
    from cockpit_source.deletions.applier import apply_plan
    from cockpit_source.deletions.approval import approve_unattended
    from cockpit_source.deletions.report import print_states, states_to_json
    from cockpit_source.report import create_console

    def approve(plan: Plan) -> Approval:
        if plan_hash is not None and approved_by is not None:
            return approve_unattended(plan, plan_hash, approved_by)
        return _ask(plan)

    console = create_console()
    with _refusals_as_json(as_json), _explained_interruption(plan_id), _open_session(pipeline) as session:
        applied = apply_plan(session, plan_id, approve)
        course = session.history().plans[plan_id]
    if as_json:
        stop = None if applied.stop is None else {"code": applied.stop.code, "text": applied.stop.text}
        console.print_json(data=states_to_json(course) | {"stop": stop})
    else:
        print_states(course, console)
        if applied.stop is not None:
            text = f"The run ended early ({applied.stop.code}): {applied.stop.text}"
            console.print(text, markup=False, soft_wrap=True)
    sys.exit(0 if applied.is_done else EXIT_SOME_NOT_READ)


@deletions_app.command(epilog="Example: cockpit deletions verify --wait-seconds 300")
def verify(
    wait_seconds: Annotated[float, typer.Option(min=0, help="How long to read again for each open item.")] = 0,
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Settle by reading what became of deletions that were not seen to be done. Sends none.

    Exit codes: 0 all settled, 2 configuration or usage, 3 some are open still, 4 the ledger cannot be used, 5 sign-in
    refused, 6 in use.
    """
    pipeline = _open_pipeline(project, database, destination, dataset)
    from cockpit_source.deletions.planner import check_ledger
    from cockpit_source.deletions.report import print_states, states_to_json
    from cockpit_source.deletions.verifier import settle_open_items
    from cockpit_source.report import create_console

    console = create_console()
    with _refusals_as_json(as_json), _open_session(pipeline, sends=False) as session:
        check_ledger(session)
        touched = {item.plan_id for item, _ in settle_open_items(session, wait_seconds=wait_seconds)}
        history = session.history()
    courses = [history.plans[plan_id] for plan_id in sorted(touched)]
    if as_json:
        console.print_json(data=[states_to_json(course) for course in courses])
    elif not history.open_items() and not courses:
        console.print("Nothing is open: every deletion that was sent is settled.")
    for course in courses if not as_json else ():
        console.print(f"plan {course.plan_id}", soft_wrap=True)
        print_states(course, console)
    sys.exit(EXIT_SOME_NOT_READ if history.open_items() else 0)


@deletions_app.command(epilog="Example: cockpit deletions mend")
def mend(
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
) -> None:
    """Copy records that one of the two stores of the ledger lacks from the other, and record that.

    Find out first how they came to differ: `cockpit deletions log` says in what. Calls no API.
    """
    pipeline = _open_pipeline(project, database, destination, dataset)
    from cockpit_source.configuration import project_folder
    from cockpit_source.deletions.ledger import open_ledger

    with open_ledger(pipeline, project_folder()) as ledger:
        count = ledger.mend(at=datetime.now(UTC), actor=_actor())
    typer.echo(f"{count} records were copied." if count else "The two stores do not differ.")


@deletions_app.command(
    epilog="Example: cockpit deletions move --from license_inventory.duckdb --destination postgres"
)
def move(
    destination: Annotated[
        str, typer.Option(help="Where to: postgres, configured as dlt wants it.", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="DuckDB file of the inventory; by default license_inventory.duckdb in the project folder."
        ),
    ] = None,
    project: Project = None,
    dataset: Dataset = "cockpit",
) -> None:
    """Move the ledger that lies beside a DuckDB file to PostgreSQL, with every record as it is. Calls no API.

    The old one stays, gets a last record that says where it went, and takes no more. Run it again after a kill.

    Exit codes: 0 moved, 2 configuration or usage, 4 refused, 6 in use.
    """
    pipeline = _open_pipeline(project, None, destination, dataset)
    from cockpit_source.configuration import project_folder
    from cockpit_source.deletions.ledger_move import move_ledger
    from cockpit_source.deletions.ledger_place import ledger_place, place_beside
    from cockpit_source.pipeline import locate_database

    old, new = place_beside(locate_database(source, dataset)), ledger_place(pipeline)
    count = move_ledger(old, new, project_folder(), at=datetime.now(UTC), actor=_actor())
    typer.echo(
        f"The ledger goes on at {new.location}, with {count} records. Its file is {new.file_in(project_folder())}."
    )


@deletions_app.command(epilog="Example: cockpit deletions log --json > ledger.json")
def log(
    plan_id: Annotated[str | None, typer.Option("--plan", help="Only the records of this plan.")] = None,
    project: Project = None,
    database: Database = None,
    destination: Destination = "duckdb",
    dataset: Dataset = "cockpit",
    as_json: AsJson = False,
) -> None:
    """Print the ledger: who deleted what, when, why, on which evidence, and what the API said. Changes nothing."""
    pipeline = _open_pipeline(project, database, destination, dataset)
    from cockpit_source.configuration import project_folder
    from cockpit_source.deletions.ledger import open_ledger
    from cockpit_source.deletions.report import log_to_json, print_log
    from cockpit_source.report import create_console

    with _refusals_as_json(as_json), open_ledger(pipeline, project_folder(), read_only=True) as ledger:
        _warn_of_difference(ledger.difference)
        records = list(ledger.records)
    if as_json:
        create_console().print_json(data=log_to_json(records, plan_id=plan_id))
    else:
        print_log(records, create_console(), plan_id=plan_id)


def _open_pipeline(project: Path | None, database: Path | None, destination: str, dataset: str) -> dlt.Pipeline:
    enter_project(project)
    from cockpit_source.configuration import resolve_tenant_key
    from cockpit_source.deletions.settings import refuse_many_tenants
    from cockpit_source.pipeline import create_pipeline

    refuse_many_tenants()

    return create_pipeline(resolve_tenant_key(), destination=destination, database=database, dataset=dataset)


@contextmanager
def _open_session(pipeline: dlt.Pipeline, *, sends: bool = True) -> Iterator[Session]:
    """A session of the settings; one that never sends needs neither the switch nor the list of the protected."""
    from cockpit_source.deletions.session import open_session
    from cockpit_source.deletions.settings import resolve_deletion_settings
    from cockpit_source.report import create_console

    notes = create_console(stderr=True)
    settings = resolve_deletion_settings(enabled=None if sends else True, needs_list=sends)

    def say(text: str) -> None:
        notes.print(text, markup=False, soft_wrap=True)

    with open_session(pipeline, settings, actor=_actor(), say=say) as session:
        yield session


def _ask(plan: Plan) -> Approval:
    """Let a person at a terminal approve. Raises DeletionRefused where there is none, or the words are others."""
    from cockpit_source.deletions.approval import HASH_CHARACTERS, approve_interactive, confirmation_words
    from cockpit_source.deletions.report import describe_blast_radius, describe_item

    if not sys.stdin.isatty():
        raise DeletionRefused(
            "not_approved",
            "Nobody is there to approve the plan: standard input is no terminal. Give --hash and --approved-by.",
        )
    for line in (*describe_blast_radius(plan), *map(describe_item, plan.items)):
        typer.echo(line, err=True)
    try:
        words = typer.prompt(f'Type "{confirmation_words(plan)}"', err=True)
        typed = typer.prompt(f"Type the first {HASH_CHARACTERS} characters of the plan's hash", err=True)
    except typer.Abort:
        raise DeletionRefused("not_approved", "The plan was not approved, so nothing was sent.") from None
    return approve_interactive(plan, words, typed, _actor())


@contextmanager
def _explained_interruption(plan_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"\nInterrupted. `cockpit deletions show {plan_id}` tells what was sent, `cockpit deletions verify` "
            "settles it, and applying the plan again carries on.",
            err=True,
        )
        raise


def _explain_queries() -> str:
    from cockpit_source.deletions.selection import named_queries

    named = named_queries()
    width = max(map(len, named))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in named.items())
    return (
        "Say with one query what is to be deleted: --query FILE.sql, a file of yours with one SELECT, or --named "
        f"NAME, one that comes with the package:\n{lines}\n"
        "How to write one: docs/deletions.md."
    )


def _actor() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _warn_of_difference(difference: str | None) -> None:
    if difference is not None:
        typer.echo(f"Warning: the stores of the ledger differ: {difference}.", err=True)


@contextmanager
def _refusals_as_json(as_json: bool) -> Iterator[None]:
    """A refusal as JSON on stdout, where JSON was asked for, and its message in any case."""
    from cockpit_source.deletions.report import refusal_to_json
    from cockpit_source.report import create_console

    try:
        yield
    except DeletionRefused as refusal:
        if as_json:
            data: dict[str, Any] = refusal_to_json(refusal)
            create_console().print_json(data=data)
        raise
