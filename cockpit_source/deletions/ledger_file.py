"""The ledger as a file: one record a line, only ever added to, on the disk before `append` returns."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cockpit_source.deletions.ledger_record import LedgerRecord, StoreContent, find_break, read_record
from cockpit_source.errors import LedgerUnavailable

_OWNER_ONLY = 0o600


class LedgerFile:
    """The JSONL file at `path`. What `read` found is what `append` adds to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._whole = 0

    def read(self) -> StoreContent:
        """The records of the file. A torn last line, which was never committed, is passed over.

        Raises:
            LedgerUnavailable: the file cannot be read.
        """
        with _explained(self.path, "read"):
            data = self._read_bytes()
        self._size = self._whole = len(data or b"")
        if data is None:
            return StoreContent([], is_there=False)
        lines = data.split(b"\n")
        torn = len(lines.pop())
        if not torn and lines and not _is_json(lines[-1]):
            torn = len(lines.pop()) + 1
        self._whole -= torn
        return _read_lines(lines)

    def append(self, records: Sequence[LedgerRecord]) -> None:
        """Add records, in one write, after cutting a torn last line off; then wait until the disk has them.

        Raises:
            LedgerUnavailable: that did not work, or something else changed the file meanwhile. Part of it may be
                written.
        """
        self.cut_torn_line()
        lines = b"".join(record.to_text().encode() + b"\n" for record in records)
        with _explained(self.path, "written"):
            is_new = not self._size and not self.path.exists()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (0 if self._size else os.O_CREAT)
            descriptor = os.open(self.path, flags, _OWNER_ONLY)
            try:
                self._write(descriptor, lines)
            finally:
                os.close(descriptor)
            if is_new:
                sync_folder(self.path.parent)

    def cut_torn_line(self) -> None:
        """Take the torn last line off that `read` passed over.

        Raises:
            LedgerUnavailable: the file cannot be written.
        """
        if self._whole == self._size:
            return
        with _explained(self.path, "written"):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                self._require_size(descriptor)
                os.ftruncate(descriptor, self._whole)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._size = self._whole

    def sync(self) -> None:
        """Wait until the disk has what `read` found.

        Raises:
            LedgerUnavailable: the file cannot be written.
        """
        with _explained(self.path, "written"):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _write(self, descriptor: int, lines: bytes) -> None:
        self._require_size(descriptor)
        written = os.write(descriptor, lines)
        if written < len(lines):
            raise OSError(f"only {written} of {len(lines)} bytes could be written")
        os.fsync(descriptor)
        self._size = self._whole = self._size + len(lines)

    def _require_size(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size != self._size:
            raise OSError(f"it has {size} bytes where {self._size} were read: something else changed it")

    def _read_bytes(self) -> bytes | None:
        try:
            with self.path.open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError("it is no regular file")
                return file.read()
        except FileNotFoundError:
            return None


def sync_folder(folder: Path) -> None:
    """Wait until the disk has what was created in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_lines(lines: Sequence[bytes]) -> StoreContent:
    records: list[LedgerRecord] = []
    for number, line in enumerate(lines, 1):
        try:
            record = read_record(line.decode())
        except ValueError as error:
            reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            return StoreContent(records, f"line {number} cannot be read: {reason}")
        if problem := find_break(record, records[-1] if records else None):
            return StoreContent(records, f"in line {number}, {problem}")
        records.append(record)
    return StoreContent(records)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerUnavailable(
            f"The ledger file {path} cannot be {what}: {error.strerror or error}. Nothing is sent without it. Check "
            "the folder, its permissions and the space on the disk, then run again."
        ) from error
