"""The deletions as a script: `plan FILE.sql`, `apply PLAN_ID HASH APPROVED_BY` or `verify` after its name.

It does what `cockpit deletions plan`, the unattended `apply` and `verify` do, with the same exit codes, and is the
place to add steps of your own, such as asking a ticket system whether a plan is approved. Neither deletion can be
undone: read docs/deletions.md first. Settings come from .dlt/config.toml and .dlt/secrets.toml of the current folder.
"""

import getpass
import socket
import sys
from pathlib import Path

from cockpit_source import CockpitError, create_pipeline
from cockpit_source.deletions.applier import apply_plan
from cockpit_source.deletions.approval import approve_unattended
from cockpit_source.deletions.planner import make_plan
from cockpit_source.deletions.report import describe_blast_radius, describe_item
from cockpit_source.deletions.selection import read_query
from cockpit_source.deletions.session import Session, open_session
from cockpit_source.deletions.settings import resolve_deletion_settings
from cockpit_source.deletions.verifier import settle_open_items


def plan(session: Session, query_file: str) -> int:
    """Make a plan and print what whoever approves it has to see."""
    made = make_plan(session, read_query(Path(query_file)))
    if made is None:
        print("Nothing to do: the query selects nothing.")
        return 0
    items = [f"{item.number} {describe_item(item)}: {item.candidate.reason}" for item in made.items]
    print(*describe_blast_radius(made), *items, f"plan {made.plan_id}", f"hash {made.plan_hash}", sep="\n")
    return 0


def apply(session: Session, plan_id: str, plan_hash: str, approved_by: str) -> int:
    """Carry out the plan with exactly this hash."""
    applied = apply_plan(session, plan_id, lambda plan: approve_unattended(plan, plan_hash, approved_by))
    print(*(f"item {number} {state}" for number, state in applied.states.items()), sep="\n")
    if applied.stop is not None:
        print(f"The run ended early ({applied.stop.code}): {applied.stop.text}", file=sys.stderr)
    return 0 if applied.is_done else 3


def verify(session: Session) -> int:
    """Settle by reading what was sent and not yet seen to be done."""
    for item, state in settle_open_items(session):
        print(f"plan {item.plan_id} item {item.number} {state}")
    return 3 if session.history().open_items() else 0


def main(command: str = "", *arguments: str) -> int:
    """One command in a session, which only one process at a time may have."""
    commands = {"plan": (plan, 1), "apply": (apply, 3), "verify": (verify, 0)}
    if command not in commands or len(arguments) != commands[command][1]:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    # what was sent is settled also while the deletions are switched off
    settings = resolve_deletion_settings(enabled=True if command == "verify" else None)
    pipeline = create_pipeline(settings.api.tenant_key)
    actor = f"{getpass.getuser()}@{socket.gethostname()}"
    with open_session(pipeline, settings, actor=actor, say=lambda text: print(text, file=sys.stderr)) as session:
        return commands[command][0](session, *arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except CockpitError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
