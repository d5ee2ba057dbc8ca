"""Proof that the state machine of the deletions can fail: `python tests/prove_machine.py`.

Each change makes the deletions unsafe in one way, in a copy of the package. The machine of `test_deletion_machine`
has to find every one of them. Exits with 1 when it does not, or when a change does not fit the code any more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# what is made unsafe: module, code, and what it becomes
CHANGES: dict[str, tuple[str, str, str]] = {
    "no intent": (
        "applier",
        '        self._record("intent", item, correlation_id',
        '        str(item) or self._record("intent", item, correlation_id',
    ),
    "intent in the file only": (
        "ledger",
        "        self._store.insert(rows, self._stored_last)\n",
        '        if to_file[-1].kind != "intent":\n            self._store.insert(rows, self._stored_last)\n',
    ),
    "sent again after an unknown outcome": (
        "applier",
        'elif delivery.result in ("throttled", "not_delivered"):',
        'elif delivery.result in ("throttled", "not_delivered", "unknown"):',
    ),
    "an open item is sent again by a later apply": (
        "history",
        'frozenset({"planned", "blocked"})',
        'frozenset({"planned", "blocked", "sending", "unknown"})',
    ),
    "planned again while it is open": (
        "planner",
        "    found += guards.check_unsettled(candidates, history)\n",
        "",
    ),
    "no limit of a day": ("guards", "if left + sent_today > limits.max_actions_per_day:", "if False:"),
    "no limit of a plan": ("guards", "if actions > limits.max_actions:", "if False:"),
    "no limit in percent": ("guards", "elif left > allowed:", "elif False:"),
    "limits of the plan alone": (
        "applier",
        "limits = strictest(plan.limits, session.limits())",
        "limits = plan.limits",
    ),
    "no expiry": ("plan_check", "if now >= plan.expires_at or now < plan.created_at:", "if False:"),
    "superseded plans": ("plan_check", "if latest is not None and latest.plan_id != plan.plan_id:", "if False:"),
    "stores that differ": (
        "ledger",
        '        if self.difference is not None:\n            raise self._differs("Nothing',
        '        if False:\n            raise self._differs("Nothing',
    ),
    "no kill switch between two": (
        "applier",
        "        if reason := is_stopped(self._session.settings):\n            raise",
        "        if reason := None:\n            raise",
    ),
    "no reading before sending": (
        "applier",
        "        return not self._is_absent(item)\n",
        "        return True\n",
    ),
    "seats are not looked at": ("guards", "    if any(told):\n", "    if False:\n"),
    "names are not looked at": (
        "guards",
        "    if name is not None and name == item.inventory.company_name:\n",
        "    if True:\n",
    ),
    "nobody is protected": (
        "guards",
        "        if (entry := protected.find(item.candidate.customer_id, names)) is not None:\n",
        "        if (entry := None) is not None:\n",
    ),
    "no approval": ("approval", "if given_hash.strip().lower() != plan.plan_hash:", "if False:"),
    "the first need not be verified": ("applier", "if self._sent == 1 and not is_gone:", "if False:"),
    "no time between two": ("applier", "        self._wait_for_turn()\n", ""),
    "relationships that are left": (
        "guards",
        "    if not left:\n        return []\n",
        "    if True:\n        return []\n",
    ),
}


def prove(names: list[str], runs: int) -> bool:
    """Whether the machine finds each of these changes."""
    found = [_find(name, runs) for name in names]
    return all(found)


def _find(name: str, runs: int) -> bool:
    module, code, changed = CHANGES[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("cockpit_source", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "cockpit_source" / "deletions" / f"{module}.py"
        text = path.read_text()
        if text.count(code) != 1:
            print(f"{name:<45} does not fit {module}.py any more", flush=True)
            return False
        path.write_text(text.replace(code, changed))
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_deletion_machine.py"],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": folder, "DELETION_RUNS": str(runs), "DELETION_SHRINK": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"^E +(?:AssertionError: assert|assert) (\[.{0,90})", ended.stdout, re.MULTILINE)
    said = found[1] if found else "NOT FOUND" if ended.returncode == 0 else "another failure: " + ended.stdout[-300:]
    print(f"{name:<45} {time.monotonic() - began:5.0f} s  {said}", flush=True)
    return found is not None


def main() -> None:
    """Try every change."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=125, help="of each of the four seeds, at most")
    parser.add_argument("names", nargs="*", help="changes to try; all by default", metavar="NAME")
    arguments = parser.parse_args()
    raise SystemExit(not prove(arguments.names or list(CHANGES), arguments.runs))


if __name__ == "__main__":
    main()
