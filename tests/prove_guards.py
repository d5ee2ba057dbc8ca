"""Proof that the tests of the guards hold every part of them: `python tests/prove_guards.py`.

guards.py and history.py of the deletions are changed in one place at a time, and the tests of both must fail each
time. mutmut changes what stands in functions; what it leaves out (constants of the modules, properties) is changed
here. A change that no test notices must stand in mutants_explained.toml with the reason; else this exits with 1.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

PROJECT = Path(__file__).parents[1]
FOLDER = "cockpit_source/deletions"
MODULES = ("guards", "history")
TESTS = ("test_deletion_guards.py", "test_deletion_history.py")
HELPERS = ("conftest.py", "support.py", "postgres_server.py", "deletion_facts.py")
# it reads the source, in which mutmut keeps all mutants at once
LEFT_OUT = "tests/test_deletion_guards.py::test_every_code_of_the_guards_is_here"
ARGUMENTS = ["-x", "-q", "-p", "no:cacheprovider", f"--deselect={LEFT_OUT}"]
# mutmut's words for what noticed the change
NOTICED = {"killed", "timeout"}
# types, and what stands only for them
NOT_CHANGED = {"State", "Record"}
TEST_SECONDS = 120

CONFIGURATION = f"""
[tool.pytest.ini_options]
testpaths = ["tests"]
[tool.mutmut]
source_paths = ["cockpit_source"]
only_mutate = {json.dumps([f"{FOLDER}/{name}.py" for name in MODULES])}
pytest_add_cli_args = {json.dumps(ARGUMENTS)}
pytest_add_cli_args_test_selection = {json.dumps([f"tests/{name}" for name in TESTS])}
use_git_change_detection = false
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change: in which function or constant, and the lines before and after."""

    where: str
    was: str
    becomes: str


def prove(jobs: int) -> bool:
    """Try all mutants and print those that nothing noticed; whether each of them is explained."""
    explained = read_explained()
    with tempfile.TemporaryDirectory() as folder:
        by_mutmut, left = run_mutmut(make_copy(Path(folder) / "mutmut"), jobs)
        others, left_of_others = run_others(Path(folder), jobs)
    survivors = left + left_of_others
    tried = by_mutmut + others
    print(
        f"{tried} mutants of {' and '.join(f'{name}.py' for name in MODULES)} ({by_mutmut} by mutmut, {others} of "
        f"constants and properties): {tried - len(survivors)} noticed by the tests, {len(survivors)} not."
    )
    for mutant in survivors:
        print(f"\n{mutant.where}\n  - {mutant.was}\n  + {mutant.becomes}")
        print(f"  {explained.get(mutant, 'NOT EXPLAINED: write a test that notices it')}")
    for mutant in sorted(set(explained) - set(survivors), key=str):
        print(f"\nmutants_explained.toml explains one that is noticed or gone: {mutant.where}, {mutant.becomes}")
    return set(survivors) <= set(explained)


def read_explained() -> dict[Mutant, str]:
    """The mutants that may survive, each with the reason."""
    text = (PROJECT / "tests" / "mutants_explained.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["mutants"]
    return {Mutant(entry["where"], entry["was"], entry["becomes"]): entry["why"] for entry in entries}


def make_copy(folder: Path) -> Path:
    """The package and the tests of the guards in a folder of their own."""
    shutil.copytree(
        PROJECT / "cockpit_source", folder / "cockpit_source", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "tests").mkdir()
    for name in (*HELPERS, *TESTS):
        shutil.copy(PROJECT / "tests" / name, folder / "tests" / name)
    (folder / "pyproject.toml").write_text(CONFIGURATION, encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str, seconds: float = 3600) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


# --- what stands in functions ---


def run_mutmut(folder: Path, jobs: int) -> tuple[int, list[Mutant]]:
    """How many mutants there are, and those that no test noticed."""
    done = run(folder, "mutmut", "run", "--max-children", str(jobs))
    if done.returncode != 0:
        raise SystemExit(f"mutmut failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    results = run(folder, "mutmut", "results", "--all", "true").stdout
    statuses = dict(line.strip().rsplit(": ", 1) for line in results.splitlines() if ": " in line)
    print(f"mutmut: {dict(Counter(statuses.values()))}", flush=True)
    if not statuses:
        raise SystemExit("mutmut made no mutants")
    return len(statuses), [show(folder, name) for name, status in statuses.items() if status not in NOTICED]


def show(folder: Path, name: str) -> Mutant:
    diff = run(folder, "mutmut", "show", name).stdout.splitlines()
    module, _, function = name.rpartition("__mutmut_")[0].removeprefix("cockpit_source.deletions.").partition(".")
    # mutmut marks functions with x_, and methods with a rare letter around the class
    where = f"{module}.{function.removeprefix('x_').replace('xǁ', '').replace('ǁ', '.')}"

    def lines(sign: str) -> str:
        return " ".join(line[1:].strip() for line in diff if line.startswith(sign) and line[:3] != sign * 3)

    return Mutant(where, lines("-"), lines("+"))


# --- what mutmut leaves out: constants of a module, and functions with a decorator ---


def run_others(folder: Path, jobs: int) -> tuple[int, list[Mutant]]:
    """How many mutants there are, and those that no test noticed."""
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        copies.put(make_copy(folder / f"copy_{number}"))

    def is_noticed(name: str, source: str) -> bool:
        place = copies.get()
        path = place / FOLDER / f"{name}.py"
        original = path.read_text(encoding="utf-8")
        path.write_text(source, encoding="utf-8")
        try:
            tests = [f"tests/{test}" for test in TESTS]
            code = run(place, "pytest", *ARGUMENTS, *tests, seconds=TEST_SECONDS).returncode
        finally:
            path.write_text(original, encoding="utf-8")
            copies.put(place)
        if code not in (0, 1, 2):
            raise SystemExit(f"pytest ended with {code} for a mutant of {name}.py")
        return code != 0

    if is_noticed("guards", (PROJECT / FOLDER / "guards.py").read_text(encoding="utf-8")):
        raise SystemExit("the tests fail without any change")
    tried = [(name, mutant, source) for name in MODULES for mutant, source in make_others(name)]
    with ThreadPoolExecutor(jobs) as threads:
        noticed = list(threads.map(lambda each: is_noticed(each[0], each[2]), tried))
    return len(tried), [mutant for (_, mutant, _), seen in zip(tried, noticed, strict=True) if not seen]


def make_others(name: str) -> Iterator[tuple[Mutant, str]]:
    """Each mutant of the constants and properties of a module, with the source of the whole module."""
    tree = ast.parse((PROJECT / FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    for where, node in find_places(tree):
        for number, inner in enumerate(ast.walk(node)):
            for change in changes_of(inner):
                # the same node of a copy of the module
                module = copy.deepcopy(tree)
                again = next(found for label, found in find_places(module) if label == where)
                was = ast.unparse(again)
                change(list(ast.walk(again))[number])
                mutant = Mutant(f"{name}.{where}", one_line(was), one_line(ast.unparse(again)))
                yield mutant, ast.unparse(module)


def find_places(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            label = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if label not in NOT_CHANGED:
                yield label, node.value
        elif isinstance(node, ast.ClassDef) and node.name not in NOT_CHANGED:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.decorator_list:
                    yield f"{node.name}.{inner.name}", inner.body[-1]


def changes_of(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    """Changes of one node, to be made to the same node of a copy."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield lambda found: setattr(found, "value", found.value + 1)  # type: ignore[attr-defined]
        yield lambda found: setattr(found, "value", found.value - 1)  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield lambda found: setattr(found, "value", f"XX{found.value}")  # type: ignore[attr-defined]
    elif isinstance(node, ast.Set):
        yield lambda found: found.elts.append(ast.Constant("XX"))  # type: ignore[attr-defined]
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
        yield lambda found: setattr(found, "ops", [ast.NotIn()])
    elif isinstance(node, ast.Name) and node.id in ("all", "reversed"):
        yield lambda found: setattr(found, "id", {"all": "any", "reversed": "iter"}[found.id])  # type: ignore[attr-defined]
    elif isinstance(node, ast.Return):
        yield lambda found: setattr(found, "value", ast.Constant(None))


def one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    sys.exit(0 if prove(parser.parse_args().jobs) else 1)
