"""The deletions as a script: `python pipelines/deletions.py plan FILE.sql`, then `apply PLAN_ID HASH APPROVED_BY`.

It does what `cockpit deletions plan` and the unattended `cockpit deletions apply` do. Both deletions cannot be
undone: read docs/deletions.md first. Settings come from .dlt/config.toml and .dlt/secrets.toml of the current folder.
"""

import getpass
import sys
from pathlib import Path

from cockpit_source import CockpitError, create_pipeline
from cockpit_source.deletions.applier import apply_plan, approve_unattended
from cockpit_source.deletions.planner import make_plan
from cockpit_source.deletions.report import describe_blast_radius
from cockpit_source.deletions.selection import read_query
from cockpit_source.deletions.session import open_session
from cockpit_source.deletions.settings import resolve_deletion_settings


def main(command: str, *arguments: str) -> int:
    """Plan or apply; the exit code is that of the command of the same name."""
    settings = resolve_deletion_settings()
    pipeline = create_pipeline(settings.api.tenant_key)
    with open_session(pipeline, settings, actor=getpass.getuser(), say=print) as session:
        if command == "plan":
            plan = make_plan(session, read_query(Path(*arguments)))
            if plan is None:
                print("Nothing to do.")
                return 0
            print("\n".join(describe_blast_radius(plan)))
            print(f"plan {plan.plan_id}, hash {plan.plan_hash}")
            return 0
        plan_id, plan_hash, approved_by = arguments
        applied = apply_plan(session, plan_id, lambda plan: approve_unattended(plan, plan_hash, approved_by))
    print({number: str(state) for number, state in applied.states.items()}, applied.stop or "")
    return 0 if applied.is_done else 3


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except CockpitError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
