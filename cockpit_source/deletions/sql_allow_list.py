"""What a deletion query may be: one SELECT on the tables of the inventory, made of what is on the lists here.

The text is parsed, every node of its syntax tree is held against the lists, and the SQL that runs is written anew
from the checked tree; the text itself is never sent to a database. So it does not matter what the database would
have understood differently in it: comments, strings in dollars, escapes and the like are gone or refused. In the SQL
that comes out, every name is quoted, and every table that no WITH defines has the dataset in front.

What is on no list is refused, whatever it is. To allow something new, add its name to a list, and hostile uses of it
to the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from cockpit_source.deletions.sql_text import check_characters, check_tokens, not_allowed, not_select
from cockpit_source.errors import DeletionRefused
from cockpit_source.redaction import redact
from cockpit_source.tables import TABLES
from cockpit_source.values import abbreviate

# the classes of the nodes are not the same in all versions of sqlglot
_Node = Any

_LOADS_TABLE = "_dlt_loads"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# names of classes of sqlglot, exact: a subclass is not on the list
_STATEMENTS = frozenset({"Select", "Union", "Intersect", "Except", "Subquery"})
_CLAUSES = _words(
    "With CTE TableAlias From Table Join Where Group Having Order Ordered Limit Offset Fetch Distinct Qualify "
    "Alias Column Identifier Star Paren Tuple"
)
_OPERATORS = _words(
    "And Or Not EQ NEQ GT GTE LT LTE Is NullSafeEQ NullSafeNEQ In Between Like ILike Escape Exists Any All "
    "Add Sub Mul Div Mod Neg DPipe Case If Interval AtTimeZone"
)
_VALUES = _words("Literal Null Boolean Cast TryCast DataType DataTypeParam Var")
# each gives the same for the same rows, and reads and changes nothing else
_FUNCTIONS = _words(
    "Count CountIf Sum Min Max Avg AnyValue LogicalAnd LogicalOr GroupConcat Filter "
    "Window WindowSpec RowNumber Rank DenseRank Lag Lead FirstValue LastValue "
    "Coalesce Nullif Greatest Least Abs Round Floor Ceil Sign "
    "Lower Upper Trim Length Substring Left Right Replace Concat ConcatWs StrPosition StartsWith SplitPart "
    "CurrentDate CurrentTimestamp DateTrunc TimestampTrunc Extract DateDiff DateAdd DateSub Year Month Day"
)
_ALLOWED = _STATEMENTS | _CLAUSES | _OPERATORS | _VALUES | _FUNCTIONS | {"Anonymous"}

# functions that sqlglot does not know itself
_OTHER_FUNCTIONS = frozenset({"now", "age", "date_part", "strpos", "starts_with", "btrim", "ltrim", "rtrim"})

_TYPES = _words(
    "BOOLEAN SMALLINT INT BIGINT INT128 FLOAT DOUBLE DECIMAL CHAR VARCHAR TEXT UUID DATE TIMESTAMP TIMESTAMPTZ "
    "TIMESTAMPNTZ INTERVAL"
)
_UNITS = _words("MICROSECOND MILLISECOND SECOND MINUTE HOUR DAY WEEK MONTH QUARTER YEAR EPOCH DOW ISODOW DOY")
# of a table in FROM
_TABLE_ARGUMENTS = frozenset({"this", "db", "alias", "joins"})

_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
# words of the grammar, such as LEFT, CURRENT ROW or UNBOUNDED
_WORDS = re.compile(r"[A-Za-z_ ]*\Z")


def to_checked_sql(text: str, *, dialect: str, dataset: str) -> str:
    """The SQL to run for the query `text`, in sqlglot's `dialect`, on the tables of `dataset`.

    Raises:
        DeletionRefused: `query_not_select`, it is not one SELECT; `query_not_allowed`, it uses what is on no list.
    """
    check_characters(text)
    try:
        check_tokens(text, dialect)
        tree = _parse(text, dialect)
        for node in tree.walk():
            _check_node(node)
        tree = normalize_identifiers(tree, dialect=dialect)
        _qualify_tables(tree, dataset)
        # what cannot be written as it was meant raises
        options = {"identify": True, "comments": False, "unsupported_level": sqlglot.ErrorLevel.RAISE}
        return str(tree.sql(dialect=dialect, **options))
    except DeletionRefused:
        raise
    except RecursionError:
        raise not_allowed("it is nested too deeply") from None
    except sqlglot.errors.SqlglotError as error:
        raise not_select(f"it cannot be parsed ({_first_line(error)})") from None
    except Exception as error:  # noqa: BLE001 - what the parser stumbles over is not understood, so it does not run
        raise not_select(f"it cannot be parsed ({type(error).__name__})") from None


def _parse(text: str, dialect: str) -> _Node:
    # what follows the last semicolon, such as a comment, is no statement
    statements = [
        statement
        for statement in sqlglot.parse(text, read=dialect)
        if statement is not None and not isinstance(statement, exp.Semicolon)
    ]
    if len(statements) != 1:
        raise not_select("it is empty" if not statements else f"it holds {len(statements)} statements")
    tree = statements[0]
    if type(tree).__name__ not in _STATEMENTS:
        raise not_select(f"it is a statement of another kind ({type(tree).__name__})")
    return tree


def _check_node(node: _Node) -> None:
    name = type(node).__name__
    if name not in _ALLOWED:
        raise not_allowed(f"it uses {name}{_shown(node)}, which is not on the list of what it may use")
    check = _CHECKS.get(name, _check_words)
    check(node)


def _check_words(node: _Node) -> None:
    """Text within a node goes into the SQL as it is, so it may only be words."""
    for value in _texts(node):
        if not _WORDS.match(value):
            raise not_allowed(f"{type(node).__name__} holds {abbreviate(value)}")


def _texts(node: _Node) -> Iterator[str]:
    for value in node.args.values():
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, str):
                yield element


def _check_literal(node: _Node) -> None:
    if not isinstance(node.this, str) or not (node.args.get("is_string") is True or _NUMBER.match(node.this)):
        raise not_allowed(f"the number {abbreviate(str(node.this))} is not a plain one")


def _check_identifier(node: _Node) -> None:
    if not isinstance(node.this, str):
        raise not_allowed("a name is not plain text")


def _check_var(node: _Node) -> None:
    name = str(node.this).upper()
    if name not in _UNITS and name.removesuffix("S") not in _UNITS:
        raise not_allowed(f"{abbreviate(str(node.this))} is not a unit of time")


def _check_type(node: _Node) -> None:
    name = node.this.name if isinstance(node.this, Enum) else str(node.this)
    if name not in _TYPES or node.args.get("nested") or node.args.get("values"):
        raise not_allowed(f"the type {abbreviate(name)} is not on the list of types")
    _check_words(node)


def _check_anonymous(node: _Node) -> None:
    # a quoted name is no text, but an Identifier
    if not isinstance(node.this, str) or node.this.lower() not in _OTHER_FUNCTIONS:
        raise not_allowed(f"the function {abbreviate(node.name)} is not on the list of functions")


def _check_table(node: _Node) -> None:
    given = {name for name, value in node.args.items() if value}
    if not isinstance(node.this, exp.Identifier) or not given <= _TABLE_ARGUMENTS:
        raise not_allowed(f"FROM{_shown(node)} is not a plain table")


_CHECKS = {
    "Literal": _check_literal,
    "Identifier": _check_identifier,
    "Var": _check_var,
    "DataType": _check_type,
    "Anonymous": _check_anonymous,
    "Table": _check_table,
}


def _qualify_tables(tree: _Node, dataset: str) -> None:
    """Put the dataset in front of each table that no WITH before it defines; any other table is refused.

    A WITH is allowed at the top only: there, what a name stands for depends on nothing but the order.
    """
    names: list[str] = []
    for with_ in tree.find_all(exp.With):
        if with_.parent is not tree:
            raise not_allowed("it has a WITH that is not at its beginning")
        if with_.args.get("recursive"):
            raise not_allowed("its WITH is recursive")
        names = [cte.alias for cte in with_.expressions]
    if len(set(names)) != len(names):
        raise not_allowed("its WITH defines a name twice")
    for table in list(tree.find_all(exp.Table)):
        defined = names[: _position_in_with(table, tree)]
        if not table.args.get("db") and table.name in defined:
            continue
        _check_dataset(table, dataset)
        table.set("db", exp.to_identifier(dataset, quoted=True))


def _position_in_with(table: _Node, tree: _Node) -> int | None:
    """Which entry of the WITH a table stands in, from 0; None outside of it."""
    node: _Node = table
    while node is not None and node is not tree:
        if isinstance(node, exp.CTE):
            return int(node.index or 0)
        node = node.parent
    return None


def _check_dataset(table: _Node, dataset: str) -> None:
    schema = table.args.get("db")
    if schema is not None and (not isinstance(schema, exp.Identifier) or schema.name != dataset):
        raise not_allowed(f"the table{_shown(table)} is not in the dataset {dataset}")
    if table.name not in TABLES and table.name != _LOADS_TABLE:
        raise not_allowed(
            f"{abbreviate(table.name)} is not a table of the inventory (those are {', '.join(sorted(TABLES))})"
        )


def _shown(node: _Node) -> str:
    """The beginning of a node as SQL, for a message."""
    try:
        return f" ({abbreviate(redact(node.sql(unsupported_level=sqlglot.ErrorLevel.IGNORE)))})"
    except Exception:  # noqa: BLE001 - the message does without it
        return ""


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return redact(lines[0]).rstrip(".")[:200] if lines else type(error).__name__
