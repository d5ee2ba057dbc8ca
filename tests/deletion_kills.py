"""`cockpit deletions apply` killed with SIGKILL at random instants of its life, and what it left behind.

The log of the sandbox says which DELETE requests came; both stores of the ledger are read from outside, at the kill
and at the end.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from killing import SOURCE_FOLDER, bare_environment, open_destination

from cockpit_source.deletions.ledger_tables import LEDGER_DATASET
from cockpit_source.sandbox import CSP_CLIENT, SandboxTenant, spawned_sandbox
from cockpit_source.sandbox_command import write_project

CUSTOMERS = 60
ACTIONS = 5
_DONE, _SOME_OPEN, _REFUSED, _BUSY = 0, 3, 4, 6
# all has ended, or a customer waits for a relationship of which nobody knows whether its removal was sent
_EXPECTED = ("already_applied", "relationship_left")
_DELETIONS = f"""
[sources.cockpit.deletions]
enabled = true
protected_file = "protected.txt"
max_actions = {ACTIONS}
max_percent = 50
max_actions_per_day = {ACTIONS}
plan_lifetime_minutes = 10080
seconds_between_calls = 0
verify_timeout_seconds = 5
"""
_IDS_OF_INTENTS = f"SELECT correlation_id FROM {LEDGER_DATASET}.deletion_events WHERE kind = 'intent'"


@dataclass(slots=True)
class Trial:
    """An apply that was killed once and then run again until nothing more came of it.

    `sent_before` counts the DELETE requests until the kill. `wrong` says in words what must never be.
    """

    kill_seconds: float
    sent_before: int
    deletes: int = 0
    intents: int = 0
    doubles: int = 0
    orphans: int = 0
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.doubles or self.orphans or self.wrong)


class DeletionProof:
    """A simulated tenant, its inventory, and a plan of five deletions that any number of trials carry out."""

    def __init__(self, folder: Path, destination: str = "duckdb", *, latency_ms: float = 20) -> None:
        self._stack = ExitStack()
        self._project = folder / "project"
        self._saved = folder / "saved"
        self._destination_name = destination
        self._latency_ms = latency_ms

    def __enter__(self) -> DeletionProof:
        options: dict[str, Any] = {"customers": CUSTOMERS, "incidents": False}
        tenant = SandboxTenant(**options)
        self._sandbox = self._stack.enter_context(
            spawned_sandbox(latency_ms=self._latency_ms, deletion_delay_seconds=0, **options)
        )
        write_project(self._project, tenant, self._sandbox.base_url)
        with (self._project / ".dlt" / "config.toml").open("a") as file:
            file.write(_DELETIONS)
        with (self._project / ".dlt" / "secrets.toml").open("a") as file:
            file.write(
                f"\n[sources.cockpit.deletions]\n"
                f'client_id = "{CSP_CLIENT.id}"\nclient_secret = "{CSP_CLIENT.secret}"\n'
            )
        (self._project / "protected.txt").write_text("")
        self.destination = self._stack.enter_context(open_destination(self._destination_name, self._project))
        self._make_plan(tenant)
        self.destination.save()
        shutil.copytree(self._project, self._saved)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self) -> float:
        """Seconds that an apply takes which nobody kills; its calls are counted, too."""
        self._restore(0)
        began = time.monotonic()
        code, said = self._run(*self._apply)
        seconds = time.monotonic() - began
        assert code == _DONE, said
        self._calls = len(self._sandbox.requests(self._mark)[0])
        trial = self._judge(Trial(0.0, ACTIONS), self._deletes(), [])
        assert trial.holds, trial
        assert trial.states == {"verified": ACTIONS}, trial
        return seconds

    def run_trial(self, draws: random.Random, seconds: float) -> Trial:
        """Kill an apply at an instant of its first `seconds`, then go on until nothing more comes of it.

        Every other time, the instant is counted from one of its calls, since most of its life is before the first.
        """
        while True:
            self._restore(draws.choice((0, 0, 0.3)))
            if draws.random() < 0.5:
                calls, instant = 0, draws.uniform(0, seconds)
            else:
                calls, instant = draws.randint(1, self._calls), draws.uniform(0, 0.05)
            age = self._kill_at(calls, instant)
            if age is not None:
                break
        before = self._deletes()
        intents = self._intents_now()
        trial = Trial(age, len(before))
        self._go_on(trial)
        return self._judge(trial, before, intents)

    def _make_plan(self, tenant: SandboxTenant) -> None:
        """Two customers with their only relationship, and the relationship of a third."""
        chosen = [c for c in tenant.customers if len(c.provider_instance_ids) == 1][:3]
        self._sandbox.offboard(*(customer.id for customer in chosen))
        code, said = self._run("load")
        assert code == _DONE, said
        relationships = [
            f"SELECT 'remove_reseller_relationship', '{c.id}', '{c.provider_instance_ids[0]}', 'left'" for c in chosen
        ]
        customers = [f"SELECT 'delete_customer', '{c.id}', NULL, 'left'" for c in chosen[:2]]
        query = self._project / "left.sql"
        columns = "t(action, customer_id, provider_instance_id, reason)"
        query.write_text(f"SELECT * FROM ({' UNION ALL '.join([*relationships, *customers])}) AS {columns}")
        code, said = self._run("deletions", "plan", "--query", str(query), "--json")
        assert code == _DONE, said
        plan = json.loads(said)
        self._plan_id, plan_hash = plan["plan_id"], plan["plan_hash"]
        self._apply = (
            "deletions",
            "apply",
            self._plan_id,
            "--hash",
            plan_hash,
            "--approved-by",
            "somebody",
            "--json",
        )
        self._paths = {
            *(
                f"/v1/Customers/{c.id}/remove-reseller-relationship/{c.provider_instance_ids[0]}".lower()
                for c in chosen
            ),
            *(f"/v1/Customers/{c.id}".lower() for c in chosen[:2]),
        }
        assert len(self._paths) == ACTIONS

    def _restore(self, delay_seconds: float) -> None:
        shutil.rmtree(self._project)
        shutil.copytree(self._saved, self._project)
        self.destination.restore()
        self._sandbox.undo_deletions()
        self._sandbox.configure(deletion_delay_seconds=delay_seconds)
        _, self._mark = self._sandbox.requests(since=10**8)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (SOURCE_FOLDER, os.environ.get("PYTHONPATH"))))
        own = {"DLT_DATA_DIR": str(self._project / "dlt"), "PYTHONPATH": path}
        return subprocess.Popen(
            [
                *(sys.executable, "-c", "from cockpit_source.cli import run; run()"),
                *(*arguments, "--project", str(self._project), *self.destination.arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=bare_environment() | own | self.destination.environment,
        )

    def _run(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end; a server may hold on to what a killed client had for an instant."""
        for _ in range(60):
            child = self._start(*arguments)
            said, noted = child.communicate()
            if child.returncode == _DONE:
                return _DONE, said.decode()
            if child.returncode != _BUSY:
                return child.returncode, said.decode() + noted.decode()
            time.sleep(0.5)
        raise AssertionError("the ledger stayed in use")

    def _kill_at(self, calls: int, seconds: float) -> float | None:
        """Start the apply and kill it so long after so many of its calls; its age, None when it was over before."""
        began = time.monotonic()
        child = self._start(*self._apply)
        while calls and child.poll() is None and self._sandbox.requests(10**8)[1] < self._mark + calls:
            time.sleep(0.002)
        try:
            said, noted = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.communicate()
            return time.monotonic() - began if child.returncode == -signal.SIGKILL else None
        assert child.returncode == _DONE, said.decode() + noted.decode()
        return None

    def _go_on(self, trial: Trial) -> None:
        """Apply and verify until the states stay as they are."""
        earlier: dict[str, str] | None = None
        for _ in range(ACTIONS + 2):
            code, said = self._run(*self._apply)
            if code not in (_DONE, _SOME_OPEN) and not (code == _REFUSED and any(map(said.__contains__, _EXPECTED))):
                trial.wrong.append(f"apply ended with {code}: {said}")
                return
            code, said = self._run("deletions", "verify", "--json")
            if code not in (_DONE, _SOME_OPEN):
                trial.wrong.append(f"verify ended with {code}: {said}")
                return
            states = self._states()
            if states == earlier or set(states.values()) <= {"verified", "already_absent"}:
                return
            earlier = states
        trial.wrong.append(f"the states went on changing: {states}")

    def _states(self) -> dict[str, str]:
        """The states of the items by the path of their deletion."""
        _, said = self._run("deletions", "show", self._plan_id, "--json")
        states = {}
        for item in json.loads(said)["items"]:
            candidate = item["candidate"]
            path = f"/v1/Customers/{candidate['customer_id']}"
            if instance := candidate["provider_instance_id"]:
                path += f"/remove-reseller-relationship/{instance}"
            states[path.lower()] = item["state"]
        return states

    def _deletes(self) -> list[dict[str, Any]]:
        requests, _ = self._sandbox.requests(self._mark)
        return [request for request in requests if request["method"] == "DELETE"]

    def _intents_now(self) -> list[tuple[set[str], set[str]]]:
        """The correlation ids of the intents in the file and in the warehouse, at this moment."""
        return [(self._ids_in_file(), self._ids_in_warehouse())]

    def _ids_in_file(self) -> set[str]:
        ids = set()
        for path in self._project.glob(f"{LEDGER_DATASET}_*.jsonl"):
            for line in path.read_bytes().split(b"\n")[:-1]:
                record = json.loads(line)
                if record["kind"] == "intent":
                    ids.add(record["correlation_id"])
        return ids

    def _ids_in_warehouse(self) -> set[str]:
        if self._destination_name == "postgres":
            records = self.destination.rows("deletion_events", LEDGER_DATASET)
            return {record["correlation_id"] for record in records if record["kind"] == "intent"}
        ids: set[str] = set()
        for database in self._project.glob("*.deletions.duckdb"):
            copy = self._project / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            # with what is not yet in it, which opening the original would write into it
            for path in self._project.glob(f"{database.name}*"):
                shutil.copy(path, copy)
            with duckdb.connect(str(copy / database.name)) as connection:
                ids |= {known for (known,) in connection.execute(_IDS_OF_INTENTS).fetchall()}
            shutil.rmtree(copy)
        return ids

    def _judge(
        self, trial: Trial, before: Sequence[dict[str, Any]], at_kill: Sequence[tuple[set[str], set[str]]]
    ) -> Trial:
        deletes = self._deletes()
        in_file, in_warehouse = self._ids_in_file(), self._ids_in_warehouse()
        trial.deletes, trial.intents = len(deletes), len(in_file | in_warehouse)
        trial.orphans = sum(request["correlation_id"] not in in_file & in_warehouse for request in deletes) + sum(
            request["correlation_id"] not in file & warehouse for file, warehouse in at_kill for request in before
        )
        by_path = Counter(request["path"].lower() for request in deletes)
        trial.doubles = sum(count - 1 for count in by_path.values())
        if outside := set(by_path) - self._paths:
            trial.wrong.append(f"outside the plan: {outside}")
        if len(in_file) > ACTIONS:
            trial.wrong.append(f"{len(in_file)} intents where {ACTIONS} are allowed in a day")
        code, said = self._run("deletions", "mend")
        if code != _DONE or "do not differ" not in said or in_file != in_warehouse:
            trial.wrong.append(f"the stores of the ledger differ: {said}")
        states = self._states()
        trial.states = Counter(states.values())
        for path, state in states.items():
            allowed = {"verified"} if by_path[path] else {"planned", "unknown", "already_absent"}
            if state not in allowed:
                trial.wrong.append(f"{path} is {state} after {by_path[path]} DELETE requests")
        return trial
