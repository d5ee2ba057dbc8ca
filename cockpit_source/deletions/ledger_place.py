"""Where the ledger of an inventory lies: in a database of its own beside it, and in a file of the project."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt

from cockpit_source.deletions.ledger_tables import LEDGER_DATASET
from cockpit_source.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """The warehouse store. `database` is its DuckDB file; without one, `credentials` are those of PostgreSQL.

    `location` is for messages and has no password. `identity` is the same for the same store, by whichever user.
    """

    location: str
    identity: str
    database: Path | None = None
    credentials: Any = field(default=None, repr=False, compare=False)

    def file_in(self, folder: Path) -> Path:
        """The ledger's file in the project folder. It keeps its name when a project moves with its database."""
        identity = self.identity
        if self.database is not None and self.database.is_relative_to(folder.resolve()):
            identity = self.database.relative_to(folder.resolve()).as_posix()
        return folder / f"{LEDGER_DATASET}_{hashlib.sha256(identity.encode()).hexdigest()[:10]}.jsonl"


def ledger_place(pipeline: dlt.Pipeline) -> LedgerPlace:
    """Where the ledger lies for the inventory that `pipeline` loads.

    For DuckDB a file beside the inventory's, which loads and readers do not touch; for PostgreSQL a schema of the
    same database.

    Raises:
        ConfigurationError: the destination is another.
    """
    configuration: Any = pipeline.destination_client().config
    credentials = configuration.credentials
    kind = configuration.destination_type
    if kind == "duckdb":
        return place_beside(Path(credentials.database))
    if kind == "postgres":
        server = f"postgresql://{str(credentials.host).lower()}:{credentials.port}/{credentials.database}"
        return LedgerPlace(f"{server} (schema {LEDGER_DATASET})", server, credentials=credentials)
    raise ConfigurationError(
        f"Deletions do not work with the destination {kind!r}: their ledger was proved on duckdb and postgres. Load "
        "the inventory into one of these, and plan the deletions there."
    )


def place_beside(inventory: Path) -> LedgerPlace:
    """The ledger beside the DuckDB file of an inventory."""
    database = inventory.resolve()
    database = database.with_name(f"{database.stem}.deletions.duckdb")
    return LedgerPlace(str(database), str(database), database)
