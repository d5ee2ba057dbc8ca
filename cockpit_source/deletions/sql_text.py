"""What the text of a deletion query must be before a parser may have it: of bounded size, and as it looks."""

from __future__ import annotations

import unicodedata

import sqlglot
from sqlglot import TokenType

from cockpit_source.errors import DeletionRefused

MAX_BYTES = 100_000
_MAX_TOKENS = 20_000
_MAX_OPEN_BRACKETS = 25
_BEGINNINGS = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN})
_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})

_USUAL_BLANKS = frozenset(" \t\n\r")
# control, format (such as those that turn the direction of writing), surrogate, private and unassigned characters,
# and blanks and line ends that only some programs take for one
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def check_characters(text: str) -> None:
    """Refuse a text that is too long, or holds a character that a reader does not see for what it is."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise not_allowed(f"it is longer than {MAX_BYTES} bytes")
    for character in text:
        if character not in _USUAL_BLANKS and unicodedata.category(character) in _HIDDEN:
            raise not_allowed(f"it holds the character U+{ord(character):04X}, which does not show as what it is")


def check_tokens(text: str, dialect: str) -> None:
    """Refuse what is plainly not one SELECT, and what the parser would take too long for.

    Raises:
        SqlglotError: the text cannot even be taken apart into words and signs.
    """
    tokens = sqlglot.tokenize(text, read=dialect)
    if len(tokens) > _MAX_TOKENS:
        raise not_allowed(f"it has more than {_MAX_TOKENS} words and signs")
    _check_begin_and_end([token.token_type for token in tokens])
    # for each open bracket, whether it follows the name of a type
    opened: list[bool] = []
    follows_type = False
    for token in tokens:
        if token.token_type in _OPENING:
            # the parser reads what is in brackets after such a name twice, so nested ones take 2, 4, 8 times as long
            if follows_type and any(opened):
                raise not_allowed("the name of a type is followed by a bracket within another such bracket")
            opened.append(follows_type)
        elif token.token_type in _CLOSING and opened:
            opened.pop()
        if len(opened) > _MAX_OPEN_BRACKETS:
            raise not_allowed(f"more than {_MAX_OPEN_BRACKETS} brackets are open at a time")
        follows_type = token.token_type in sqlglot.Parser.TYPE_TOKENS


def _check_begin_and_end(types: list[TokenType]) -> None:
    """Before the parser, which tells on the screen what it does not know."""
    if types and types[0] not in _BEGINNINGS:
        raise not_select("it does not begin with SELECT or WITH")
    while types and types[-1] is TokenType.SEMICOLON:
        types.pop()
    if TokenType.SEMICOLON in types:
        raise not_select("something follows its semicolon")


def not_select(reason: str) -> DeletionRefused:
    """The refusal of what is not one SELECT."""
    return _refused("query_not_select", reason)


def not_allowed(reason: str) -> DeletionRefused:
    """The refusal of what is on no list."""
    return _refused("query_not_allowed", reason)


def _refused(code: str, reason: str) -> DeletionRefused:
    return DeletionRefused(
        code,
        f"Refused, nothing was sent: the query does not run, since {reason}. A deletion query is one SELECT, WITH "
        "allowed, on the tables of the inventory, with plain operators, aggregates, dates and texts. Correct it.",
    )
