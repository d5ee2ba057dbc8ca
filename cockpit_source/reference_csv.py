"""What the lists that users supply have in common: files of bounded size, tidy text, and lines with their numbers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cockpit_source.errors import ConfigurationError
from cockpit_source.settings import MAX_ANSWER_BYTES
from cockpit_source.transforms import clean_text

# drawn as nothing, and left behind by spreadsheets and web pages
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u2060\ufeff]")

# what a row of a reference table holds, without tenant and load id
Row = dict[str, Any]


def tidy(text: str) -> str:
    """`text` without blanks around it and with single ones inside; no-break and invisible ones count as blanks."""
    return " ".join(clean_text(_INVISIBLE.sub("", text)).split())


def read_file(path: Path, what: str) -> bytes:
    """The content of a file. `what` begins the messages, such as "The price list".

    Raises:
        ConfigurationError: it cannot be read, or is larger than any such list.
    """
    try:
        if path.stat().st_size > MAX_ANSWER_BYTES:
            raise ConfigurationError(f"{what} {path} is larger than {describe_limit()}. Give the path of the list.")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{what} {path} does not exist. Correct the path; relative ones start at the project folder in the "
            "configuration, and at the current folder in an option."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error.strerror or error}.") from error


def describe_limit() -> str:
    """The size that a list may have."""
    return f"{MAX_ANSWER_BYTES // 2**20} MiB"


def find_separator(text: str) -> str:
    """The separator of a CSV: semicolon where its first line has more of them, else comma."""
    header, _, _ = text.lstrip().partition("\n")
    return ";" if header.count(";") > header.count(",") else ","


def read_lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV that hold anything, their cells tidy, each with its number from 1.

    Raises:
        csv.Error: quotes do not fit; `line N: ` begins the message.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    number = 1
    try:
        for cells in reader:
            tidied = [tidy(cell) for cell in cells]
            if any(tidied):
                yield number, tidied
            number = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {number}: {error}") from None
