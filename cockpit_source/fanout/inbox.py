"""Where workers leave the batches of a run: a folder or an object store, by its fsspec address.

A batch appears under its name whole or not at all: in a folder by a temporary name, fsync and rename, in an object
store by one upload, elsewhere by a temporary name and a move. Its name holds the hash of its content, so that what
else lies there, cut off or changed, is never taken for a batch.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cockpit_source.errors import CockpitError, ConfigurationError
from cockpit_source.redaction import redact
from cockpit_source.spool import BATCH_SCHEMA, encode_batch

_SUFFIX = ".parquet"
# an object of these appears when its upload is complete
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"})


class InboxError(CockpitError):
    """The folder or object store cannot be written or read."""


class Inbox:
    """The inbox of one run, or of a part of one: `url` is its folder."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            filesystem, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"spool_url cannot be used: {redact(str(error)).rstrip('.')}. Valid: a folder that this process and "
                "all workers share, or the address of an object store whose fsspec driver is installed on all of "
                "them, such as s3://bucket/spool with s3fs."
            ) from error
        self._filesystem: Any = filesystem
        self._path = path.rstrip("/")
        protocol = filesystem.protocol
        self._protocol = protocol if isinstance(protocol, str) else protocol[0]

    def publish(self, prefix: str, batch: pa.Table) -> str:
        """Write a batch whose name begins with `prefix`; gives the name. Raises InboxError."""
        content = encode_batch(batch)
        name = f"{prefix}.{_digest(content)}{_SUFFIX}"
        self.put(name, content)
        return name

    def put(self, name: str, content: bytes) -> None:
        """Write a file of any content; raises InboxError."""
        target = f"{self._path}/{name}"
        unfinished = f"{self._path}/.{name}.{uuid.uuid4().hex}.tmp"
        try:
            if self._protocol in ("file", "local"):
                _write_and_rename(Path(unfinished), Path(target), content)
            elif self._protocol in _OBJECT_STORES:
                self._filesystem.pipe_file(target, content)
            else:
                self._filesystem.makedirs(self._path, exist_ok=True)
                self._filesystem.pipe_file(unfinished, content)
                self._filesystem.mv(unfinished, target)
        except Exception as error:
            raise self._cannot("written", error) from error

    def get(self, name: str) -> bytes | None:
        """The content of a file, or None where there is none; raises InboxError."""
        try:
            self._filesystem.invalidate_cache()
            content: bytes = self._filesystem.cat_file(f"{self._path}/{name}")
            return content
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._cannot("read", error) from error

    def names(self, prefix: str = "") -> list[str]:
        """The names of the batches that begin so, sorted; raises InboxError."""
        try:
            self._filesystem.invalidate_cache()
            found = self._filesystem.ls(self._path, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._cannot("listed", error) from error
        names = (str(path).rsplit("/", 1)[-1] for path in found)
        return sorted(n for n in names if n.startswith(prefix) and n.endswith(_SUFFIX) and not n.startswith("."))

    def read(self, name: str) -> pa.Table | None:
        """A batch, or None where it is not there or not what was published under that name; raises InboxError."""
        content = self.get(name)
        if content is None or name.split(".")[-2:-1] != [_digest(content)]:
            return None
        return pq.read_table(pa.BufferReader(content), schema=BATCH_SCHEMA)

    def discard(self, name: str) -> None:
        """Remove a file; it may be gone already."""
        try:
            self._filesystem.rm_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._cannot("cleaned up", error) from error

    def folders(self) -> list[str]:
        """The names of the folders in it."""
        try:
            self._filesystem.invalidate_cache()
            found = self._filesystem.ls(self._path, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._cannot("listed", error) from error
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in found if e["type"] == "directory")

    def remove(self) -> None:
        """Remove the whole folder; what cannot be removed stays."""
        # it is rubbish by now, and the next run tries again
        with suppress(Exception):
            self._filesystem.rm(self._path, recursive=True)

    def _cannot(self, what: str, error: Exception) -> InboxError:
        reason = getattr(error, "strerror", None) or redact(str(error).strip().split("\n")[0]) or type(error).__name__
        return InboxError(
            f"The spool {self.url} cannot be {what}: {reason}. Set spool_url to a folder or object store that this "
            "process and all workers can write, and run again; the load carries on."
        )


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _write_and_rename(unfinished: Path, target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
