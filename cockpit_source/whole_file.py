"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cockpit_source.errors import ConfigurationError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, which takes its place at the end; after an error there is no trace of it.

    Raises:
        ConfigurationError: the folder does not exist, or does not let the file be written.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written: {error.strerror or error}. Name a file in a folder that exists and "
            "that you may write to."
        ) from None
    finally:
        if unfinished.exists():
            unfinished.unlink()


def write_whole(target: Path, content: bytes) -> None:
    """Write `content` to `target`, in place of what was there."""
    with replacing(target) as unfinished:
        unfinished.write_bytes(content)
