"""`cockpit move`: the whole dataset of a DuckDB file, history and all, into PostgreSQL or DuckLake.

`source_file` reads what the file holds, `target` opens where it goes, `copying` copies and compares in one
transaction, `report` tells.
"""
