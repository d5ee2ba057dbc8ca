"""Nothing of the load can reach what deletes, and one module alone sends a DELETE: read from the syntax of all."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import cockpit_source
from cockpit_source.client import CockpitClient
from cockpit_source.transport import Transport

PACKAGE = Path(cockpit_source.__file__).parent
PROJECT = Path(__file__).parents[1]
DELETIONS = "cockpit_source.deletions"
DELETE_CLIENT, APPLIER = f"{DELETIONS}.delete_client", f"{DELETIONS}.applier"
# the command line starts both
MAY_IMPORT_DELETIONS = {"cockpit_source.cli"}
WEB = {"aiohttp", "requests", "httpx", "urllib.request", "urllib3", "http.client", "cockpit_source.transport"}


def read_modules() -> dict[str, ast.Module]:
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules


MODULES = read_modules()


def imports_of(name: str, tree: ast.Module) -> set[str]:
    """Every module that is named by an import, inside functions too, or by a string that is one of its names."""
    is_package = (PACKAGE.parent / Path(*name.split(".")) / "__init__.py").is_file()
    here = name.split(".") if is_package else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: len(here) - node.level + 1], *(node.module or "").split(".")]).strip(".")
            source = base if node.level else (node.module or "")
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in MODULES:
            found.add(node.value)
    return found


IMPORTS = {name: imports_of(name, tree) for name, tree in MODULES.items()}


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def reached_from(start: str) -> set[str]:
    """What `start` imports, and what that imports, of this package. Importing a module runs its parents too."""
    reached, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in MODULES:
            continue
        reached.add(name)
        waiting += [*IMPORTS[name], name.rpartition(".")[0]]
    return reached


def calls_in(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_delete(text: object) -> bool:
    return isinstance(text, str | bytes) and text.strip().upper() in ("DELETE", b"DELETE")


def own_code(*, without: Iterable[str] = ()) -> list[str]:
    """Modules of the package but the sandbox, which plays the API and knows its methods."""
    return [name for name in MODULES if not is_in(name, "cockpit_source.sandbox") and name not in set(without)]


@pytest.mark.parametrize("name", [name for name in MODULES if not is_in(name, DELETIONS)])
def test_nothing_of_the_load_reaches_the_deletions(name: str) -> None:
    if name in MAY_IMPORT_DELETIONS:
        return
    assert {reached for reached in reached_from(name) if is_in(reached, DELETIONS)} == set()


def test_pipelines_of_the_load_reach_no_deletions() -> None:
    for path in (PROJECT / "pipelines").glob("*.py"):
        if path.name != "deletions.py":
            named = imports_of(path.stem, ast.parse(path.read_text(encoding="utf-8")))
            reached = set().union(*(reached_from(name) for name in named))
            assert not {name for name in reached if is_in(name, DELETIONS)}, path.name


def test_only_the_applier_imports_the_client_that_deletes() -> None:
    importers = {name for name, imported in IMPORTS.items() if DELETE_CLIENT in imported}
    assert importers <= {APPLIER, DELETE_CLIENT}
    # if it is there, it is used
    assert (DELETE_CLIENT in MODULES and APPLIER in MODULES) == (importers == {APPLIER})


def test_planner_reaches_no_client_that_deletes() -> None:
    planner = f"{DELETIONS}.planner"
    if planner in MODULES:
        assert not {DELETE_CLIENT, APPLIER} & reached_from(planner)


@pytest.mark.parametrize("name", own_code(without=[DELETE_CLIENT]))
def test_nothing_else_sends_a_delete(name: str) -> None:
    """No call but of records holds the method, as an argument or in a name that is given to one."""
    tree = MODULES[name]
    named = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        if is_delete(node.value.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for call in calls_in(tree):
        function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if function in ("_record", "append"):
            continue
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            is_method = isinstance(argument, ast.Constant) and is_delete(argument.value)
            is_named = isinstance(argument, ast.Name) and argument.id in named
            assert not is_method, f"{name}, line {call.lineno}"
            assert not is_named, f"{name}, line {call.lineno}"


def test_methods_that_are_sent_are_known() -> None:
    """Every call of the transport names its method, so that none can come from elsewhere."""
    methods: dict[str, set[str]] = {}
    for name in own_code(without=["cockpit_source.transport"]):
        for call in calls_in(MODULES[name]):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "send" and "transport" in ast.unparse(call):
                assert isinstance(call.args[0], ast.Constant), f"{name}, line {call.lineno}"
                methods.setdefault(name, set()).add(call.args[0].value)
    expected = {"cockpit_source.auth": {"POST"}, "cockpit_source.client": {"GET"}}
    if DELETE_CLIENT in MODULES:
        expected[DELETE_CLIENT] = {"DELETE"}
    assert {name: methods.get(name) for name in expected} == expected
    assert set(methods) <= {*expected, "cockpit_source.hooks"}
    assert "DELETE" not in methods.get("cockpit_source.hooks", set())


@pytest.mark.parametrize("name", [name for name in MODULES if is_in(name, DELETIONS) and name != DELETE_CLIENT])
def test_other_modules_of_the_deletions_reach_the_web_through_the_client_of_the_load_only(name: str) -> None:
    tree = MODULES[name]
    assert not WEB & IMPORTS[name]
    private = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not private & {"_transport", "_send", "_get", "_attempt"} - own_names(tree)


def own_names(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("kind", [CockpitClient, Transport])
def test_client_of_the_load_has_no_method_that_deletes(kind: type) -> None:
    words = ("delete", "remove", "cancel", "put", "patch")
    assert [name for name in dir(kind) if name.strip("_").split("_")[0] in words and not hasattr(object, name)] == []


def test_contracts_of_the_import_linter_name_every_module() -> None:
    configuration = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["name"]: contract for contract in configuration["tool"]["importlinter"]["contracts"]}
    contract = contracts["nothing of the load can delete"]
    children = {name for name in MODULES if name.count(".") == 1}
    assert set(contract["source_modules"]) == children - {DELETIONS} - MAY_IMPORT_DELETIONS
    assert contract["forbidden_modules"] == [DELETIONS]
    assert "allow_indirect_imports" not in contract
    assert "ignore_imports" not in contract


@pytest.mark.parametrize(
    "code",
    [
        "import cockpit_source.deletions.applier",
        "from cockpit_source.deletions import applier",
        "from cockpit_source import deletions",
        "from .deletions import applier",
        "from . import deletions",
        "def f():\n    import cockpit_source.deletions as d",
        "importlib.import_module('cockpit_source.deletions')",
    ],
)
def test_every_way_to_import_is_seen(code: str) -> None:
    found = imports_of("cockpit_source.load", ast.parse(code))
    assert {name for name in found if is_in(name, DELETIONS)}
