"""The allow-list over the syntax tree: what is hostile is refused on both dialects, what is plain comes out plain."""

from __future__ import annotations

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from cockpit_source.deletions.selection import named_queries, named_query
from cockpit_source.deletions.sql_allow_list import to_checked_sql
from cockpit_source.deletions.sql_text import MAX_BYTES
from cockpit_source.errors import DeletionRefused

DIALECTS = ("duckdb", "postgres")
COLUMNS = "'delete_customer' AS action, id AS customer_id, 'why' AS reason"
GOOD = f"SELECT {COLUMNS} FROM customers"

# refused as something else than one SELECT, or for what they use
HOSTILE = [
    # nothing, or not SQL
    "",
    " \n\t",
    ";",
    ";;;",
    "-- only a comment",
    "/* only a comment */",
    "no sql at all",
    "SELECT FROM WHERE",
    "SELECT 'unclosed",
    'SELECT "unclosed',
    "SELECT (1",
    "SELECT 1)",
    # more than one statement
    f"{GOOD}; DROP TABLE customers",
    f"{GOOD}; {GOOD}",
    f"{GOOD};;DELETE FROM customers",
    f"{GOOD} -- ;\n; DROP TABLE customers",
    f"{GOOD} /* ; */ ; DROP TABLE customers",
    f"{GOOD} /* /* nested */ ; */ ; DROP TABLE customers; --",
    f"{GOOD} WHERE id = ''; DROP TABLE customers; --'",
    f"{GOOD} WHERE id = '\\'; DROP TABLE customers; --'; DROP TABLE customers",
    f"{GOOD} WHERE id = E'\\'; DROP TABLE customers; --'",
    f"{GOOD} WHERE id = e'\\x27; DROP TABLE customers; --'",
    f"{GOOD} WHERE id = $$x$$; DROP TABLE customers; --$$",
    f"{GOOD} WHERE id = $$ ' $$",
    f"{GOOD} WHERE id = $tag$ $$ ; $tag$",
    f"{GOOD} WHERE id = U&'\\0027; DROP TABLE customers'",
    f"{GOOD} WHERE id = B'1'",
    f"{GOOD} WHERE id = X'41'",
    f"{GOOD} WHERE id = N'x'; COMMIT",
    f"{GOOD}\u037e DROP TABLE customers",
    f"{GOOD}\uff1b DROP TABLE customers",
    # characters that hide
    f"{GOOD} WHERE id = 'a\u202e;b'",
    f"{GOOD}\u00a0WHERE 1 = 1",
    f"{GOOD}\u200b",
    f"{GOOD}\u2028; DROP TABLE customers",
    f"{GOOD}\x00; DROP TABLE customers",
    f"{GOOD} WHERE id = '\x00'",
    f"{GOOD} WHERE id = '\ud800'",
    f"{GOOD}\x0bWHERE 1 = 1",
    f"\ufeff{GOOD}",
    # other statements
    "DROP TABLE customers",
    "DROP SCHEMA cockpit CASCADE",
    "CREATE TABLE t AS SELECT 1 AS a",
    "CREATE OR REPLACE VIEW customers AS SELECT 1 AS a",
    "CREATE MACRO lower(x) AS x",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION dblink",
    "CREATE SECRET (TYPE s3)",
    "ALTER TABLE customers RENAME TO gone",
    "ALTER SYSTEM SET archive_command = 'x'",
    "TRUNCATE customers",
    "INSERT INTO customers SELECT * FROM customers",
    "INSERT INTO customers VALUES (1) RETURNING id",
    "UPDATE customers SET removed_at = NULL",
    "UPDATE customers SET removed_at = NULL RETURNING id",
    "DELETE FROM customers",
    "DELETE FROM customers RETURNING id",
    "MERGE INTO customers USING runs ON 1 = 1 WHEN MATCHED THEN DELETE",
    "ATTACH 'other.duckdb'",
    "ATTACH ':memory:' AS other",
    "DETACH inventory",
    "USE other",
    "COPY customers TO 'customers.csv'",
    "COPY (SELECT * FROM customers) TO '/tmp/x.csv'",
    "COPY customers FROM 'customers.csv'",
    "COPY customers FROM PROGRAM 'id'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "EXPORT DATABASE 'folder'",
    "IMPORT DATABASE 'folder'",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '/tmp/x.so'",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET ROLE postgres",
    "RESET ROLE",
    "CALL pragma_version()",
    "CALL f()",
    "DO $$ BEGIN DELETE FROM customers; END $$",
    "EXECUTE p",
    "PREPARE p AS DELETE FROM customers",
    "DECLARE c CURSOR FOR SELECT 1",
    "FETCH ALL FROM c",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN ANALYZE DELETE FROM customers",
    "ANALYZE customers",
    "VACUUM",
    "CHECKPOINT",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "LOCK TABLE customers",
    "LISTEN channel",
    "NOTIFY channel",
    "GRANT ALL ON customers TO public",
    "COMMENT ON TABLE customers IS 'x'",
    "SHOW TABLES",
    "DESCRIBE customers",
    "SUMMARIZE customers",
    "TABLE pg_shadow",
    "VALUES ('delete_customer', 'x', 'why')",
    # a SELECT that writes or locks
    "WITH gone AS (DELETE FROM customers RETURNING id) SELECT * FROM gone",
    "WITH gone AS (UPDATE customers SET id = 'x' RETURNING id) SELECT * FROM gone",
    "WITH gone AS (INSERT INTO customers SELECT * FROM customers RETURNING id) SELECT * FROM gone",
    "SELECT id FROM (DELETE FROM customers RETURNING id) x",
    "WITH a AS (SELECT 1) DELETE FROM customers",
    "WITH a AS (SELECT 1) INSERT INTO customers SELECT * FROM a",
    "SELECT id INTO gone FROM customers",
    "SELECT id INTO TEMP gone FROM customers",
    f"{GOOD} FOR UPDATE",
    f"{GOOD} FOR SHARE NOWAIT",
    f"{GOOD} FOR NO KEY UPDATE SKIP LOCKED",
    # tables that are none of the inventory
    f"SELECT {COLUMNS} FROM other",
    f"SELECT {COLUMNS} FROM main.customers",
    f"SELECT {COLUMNS} FROM inventory.cockpit.customers",
    f"SELECT {COLUMNS} FROM public.customers",
    f"SELECT {COLUMNS} FROM cockpit_staging.customers",
    f"SELECT {COLUMNS} FROM information_schema.tables",
    f"SELECT {COLUMNS} FROM pg_catalog.pg_shadow",
    f"SELECT {COLUMNS} FROM pg_shadow",
    f"SELECT {COLUMNS} FROM pg_authid",
    f"SELECT {COLUMNS} FROM cockpit.pg_shadow",
    f"SELECT {COLUMNS} FROM sqlite_master",
    f"SELECT {COLUMNS} FROM duckdb_settings",
    f"SELECT {COLUMNS} FROM customers c, c.extra",
    f"SELECT {COLUMNS} FROM _dlt_version",
    "SELECT (SELECT passwd FROM pg_shadow) AS reason",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM pg_shadow)",
    "SELECT 1 UNION ALL SELECT 1 FROM pg_shadow",
    # names of a WITH where they stand for something else
    "WITH a AS (SELECT * FROM pg_shadow), pg_shadow AS (SELECT 1 AS x) SELECT * FROM a",
    "WITH pg_shadow AS (SELECT * FROM pg_shadow) SELECT * FROM pg_shadow",
    "SELECT * FROM pg_shadow, (WITH pg_shadow AS (SELECT 1 AS x) SELECT * FROM pg_shadow) y",
    "WITH a AS (WITH pg_shadow AS (SELECT 1 AS x) SELECT 1 AS y) SELECT * FROM pg_shadow",
    "SELECT * FROM (WITH a AS (SELECT 1 AS x) SELECT * FROM a) y",
    "WITH pg_shadow AS (SELECT 1 AS x) SELECT * FROM pg_catalog.pg_shadow",
    "WITH a AS (SELECT 1 AS x), a AS (SELECT 2 AS x) SELECT * FROM a",
    "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT * FROM a",
    # files and functions that stand for tables
    f"SELECT {COLUMNS} FROM 'customers.csv'",
    f"SELECT {COLUMNS} FROM 'https://example.com/x.parquet'",
    f'SELECT {COLUMNS} FROM "customers.csv"',
    f'SELECT {COLUMNS} FROM cockpit."customers.csv"',
    f"SELECT {COLUMNS} FROM read_csv('x.csv')",
    f"SELECT {COLUMNS} FROM read_csv_auto('x.csv')",
    f"SELECT {COLUMNS} FROM read_parquet('x.parquet')",
    f"SELECT {COLUMNS} FROM parquet_scan('x.parquet')",
    f"SELECT {COLUMNS} FROM read_json('x.json')",
    f"SELECT {COLUMNS} FROM read_text('/etc/passwd')",
    f"SELECT {COLUMNS} FROM read_blob('/etc/passwd')",
    f"SELECT {COLUMNS} FROM glob('*')",
    f"SELECT {COLUMNS} FROM sniff_csv('x.csv')",
    f"SELECT {COLUMNS} FROM duckdb_settings()",
    f"SELECT {COLUMNS} FROM duckdb_secrets()",
    f"SELECT {COLUMNS} FROM pragma_database_list()",
    f"SELECT {COLUMNS} FROM query('DROP TABLE customers')",
    f"SELECT {COLUMNS} FROM query_table('customers')",
    f"SELECT {COLUMNS} FROM sqlite_scan('x', 'y')",
    f"SELECT {COLUMNS} FROM postgres_scan('x', 'y', 'z')",
    f"SELECT {COLUMNS} FROM iceberg_scan('x')",
    f"SELECT {COLUMNS} FROM generate_series(1, 10) AS g(id)",
    f"SELECT {COLUMNS} FROM range(10)",
    f"SELECT {COLUMNS} FROM unnest(ARRAY['x']) AS u(id)",
    f"SELECT {COLUMNS} FROM pg_ls_dir('.') AS f(id)",
    f"SELECT {COLUMNS} FROM dblink('host=x', 'DROP TABLE y') AS f(id text)",
    f"SELECT {COLUMNS} FROM ROWS FROM (pg_ls_dir('.')) AS f(id)",
    f"SELECT {COLUMNS} FROM json_to_recordset('[]') AS f(id text)",
    f"SELECT {COLUMNS} FROM XMLTABLE('/' PASSING '<a/>' COLUMNS id text)",
    f"SELECT {COLUMNS} FROM customers c, LATERAL pg_read_file(c.id) f",
    f"SELECT {COLUMNS} FROM customers c CROSS JOIN LATERAL (SELECT 1) f",
    f"SELECT {COLUMNS} FROM customers TABLESAMPLE SYSTEM (10)",
    f"SELECT {COLUMNS} FROM (VALUES ('x')) AS v(id)",
    f"SELECT {COLUMNS} FROM customers PIVOT (count(*) FOR country IN ('DE'))",
    "PIVOT customers ON country USING count(*)",
    "FROM 'customers.csv'",
    f"SELECT {COLUMNS} FROM lower('x') AS f(id)",
    f"SELECT {COLUMNS} FROM now() AS f(id)",
    f"SELECT {COLUMNS} FROM cockpit.customers()",
    # functions
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_sleep(10)",
    "SELECT pg_catalog.pg_sleep(10)",
    'SELECT "pg_sleep"(10)',
    'SELECT "PG_SLEEP"(10)',
    "SELECT PG_SLEEP (10)",
    "SELECT pg_/**/sleep(10)",
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_reload_conf()",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_notify('a', 'b')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "SELECT lo_create(1)",
    "SELECT dblink_exec('host=x', 'DROP TABLE y')",
    "SELECT set_config('role', 'none', false)",
    "SELECT current_setting('data_directory')",
    "SELECT nextval('seq')",
    "SELECT NEXT VALUE FOR seq",
    "SELECT setval('seq', 1)",
    "SELECT query_to_xml('DELETE FROM customers', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT table_to_xml('customers', true, true, '')",
    "SELECT xpath('/', '<a/>')",
    "SELECT ts_stat('SELECT 1')",
    "SELECT getenv('HOME')",
    "SELECT version()",
    "SELECT current_user",
    "SELECT current_database()",
    "SELECT current_schema()",
    "SELECT random()",
    "SELECT gen_random_uuid()",
    "SELECT uuid()",
    "SELECT getvariable('x')",
    "SELECT txid_current()",
    "SELECT repeat('x', 1000000000)",
    "SELECT rpad('x', 1000000000)",
    "SELECT cockpit.f(1)",
    "SELECT f(1)",
    "SELECT count(pg_sleep(1))",
    "SELECT coalesce(lower(pg_read_file('x')), 'y')",
    "SELECT sum(nextval('s')) OVER ()",
    "SELECT 1 ORDER BY pg_sleep(1)",
    "SELECT 1 LIMIT (SELECT pg_sleep(1))",
    "SELECT 1 GROUP BY pg_sleep(1)",
    "SELECT 1 HAVING pg_sleep(1) IS NULL",
    "SELECT CASE WHEN pg_sleep(1) IS NULL THEN 1 END",
    "SELECT 'x'.lower()",
    "SELECT (c).pg_sleep FROM customers c",
    "SELECT list_transform([1], lambda x : x)",
    "SELECT list_transform([1], x -> x)",
    "SELECT [x for x in [1]]",
    "SELECT COLUMNS('.*') FROM customers",
    "SELECT #1 FROM customers",
    "SELECT ARRAY(SELECT 1)",
    "SELECT ROW(1, 2)",
    "SELECT {'a': 1}",
    "SELECT MAP {'a': 1}",
    # operators and types of which a database may hold its own
    "SELECT 1 OPERATOR(pg_catalog.+) 1",
    "SELECT 'customers'::regclass",
    "SELECT CAST('customers' AS regclass)",
    "SELECT 'x'::other_type",
    "SELECT CAST('x' AS cockpit.other_type)",
    "SELECT '<a/>'::xml",
    "SELECT '{}'::json",
    "SELECT 'x'::bytea",
    "SELECT 'a' COLLATE \"x\"",
    "SELECT id ~ '(a+)+$' FROM customers",
    "SELECT id SIMILAR TO 'a' FROM customers",
    'SELECT EXTRACT("epoch FROM now()); DROP TABLE customers; --" FROM CURRENT_TIMESTAMP)',
    # values from outside
    f"{GOOD} WHERE id = ?",
    f"{GOOD} WHERE id = $1",
    f"{GOOD} WHERE id = :id",
    f"{GOOD} WHERE id = %s",
    f"{GOOD} WHERE id = %(id)s",
    f"{GOOD} WHERE id = {{id}}",
    "\\! id",
    "\\copy customers to x",
    # sizes
    "SELECT " + "(" * 1000 + "1" + ")" * 1000,
    "SELECT " + "(" * 100 + "1",
    # of these, the parser reads what is inside again and again
    "SELECT " + "decimal(" * 24 + "1" + ")" * 24,
    "SELECT " + "date(" * 24 + "1" + ")" * 24,
    "SELECT " + "x(timestamp(" * 12 + "1" + "))" * 12,
    "SELECT " + "NOT " * 5000 + "TRUE",
    "SELECT " + "- " * 5000 + "1",
    "SELECT " + "CASE WHEN " * 2000 + "1",
    "SELECT '" + "x" * MAX_BYTES + "'",
    "SELECT " + "1," * 20_000 + "1",
    "SELECT 1 " + "UNION ALL SELECT 1 " * 6000,
]

# as they are written, and what must come out
PLAIN = [
    GOOD,
    f"{GOOD};",
    f"{GOOD}; -- no statement follows",
    f"/* why: ; DROP TABLE customers */ {GOOD} -- '",
    f"({GOOD})",
    f"{GOOD} UNION ALL {GOOD}",
    f"SELECT {COLUMNS} FROM cockpit.customers AS c WHERE c.removed_at IS NULL AND NOT c.country IN ('DE', 'AT')",
    f"SELECT {COLUMNS} FROM customers WHERE id = '-- ; DROP TABLE customers'",
    f"SELECT {COLUMNS} FROM customers WHERE company_name = 'O''Brien \\'",
    f"SELECT {COLUMNS} FROM customers WHERE company_name LIKE '企業%' OR company_name ILIKE '%test\\%' ESCAPE '\\'",
    "WITH a AS (SELECT id FROM customers), b AS (SELECT id FROM a) SELECT * FROM b",
    "WITH customers AS (SELECT id FROM customers) SELECT * FROM customers",
    "SELECT DISTINCT c.id, count(*) AS n FROM customers c LEFT JOIN scopes s ON s.customer_id = c.id GROUP BY c.id "
    "HAVING count(*) FILTER (WHERE s.delisted_at IS NULL) > 0 ORDER BY n DESC NULLS LAST LIMIT 10 OFFSET 1",
    "SELECT row_number() OVER (PARTITION BY country ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) "
    "FROM customers",
    "SELECT id FROM customers c WHERE EXISTS (SELECT 1 FROM scopes s WHERE s.customer_id = c.id) "
    "AND id NOT IN (SELECT customer_id FROM licenses WHERE total_licenses > 1e3)",
    "SELECT max(valid_to) < CURRENT_TIMESTAMP - INTERVAL '90 days' FROM license_history",
    "SELECT CURRENT_DATE - INTERVAL '3' MONTH, now(), date_trunc('month', valid_from), "
    "extract(year FROM valid_from), CAST(valid_to AS DATE), DATE '2026-01-01', TIMESTAMP '2026-01-01 00:00:00' "
    "FROM license_history",
    "SELECT upper(trim(id)) || ' ' || coalesce(nullif(sku_name, ''), '-'), substring(id, 1, 3), length(id), "
    "replace(id, 'a', 'b'), left(id, 2), concat(id, 'x'), round(avg(total_licenses), 2) FROM licenses",
    "SELECT CASE country WHEN 'DE' THEN 1 ELSE -1.5 END, total_licenses::text, a.* FROM licenses a JOIN customers b "
    "USING (tenant) CROSS JOIN runs WHERE total_licenses BETWEEN 1 AND 2 AND b.id IS DISTINCT FROM a.customer_id",
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("sql", HOSTILE, ids=lambda sql: ascii(sql[:60]))
def test_hostile(sql: str, dialect: str) -> None:
    with pytest.raises(DeletionRefused) as refused:
        to_checked_sql(sql, dialect=dialect, dataset="cockpit")
    assert refused.value.code in ("query_not_select", "query_not_allowed")
    assert "Correct it" in str(refused.value)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("sql", PLAIN, ids=lambda sql: ascii(sql[:60]))
def test_plain(sql: str, dialect: str) -> None:
    """It passes, and what comes out passes again and stays as it is, without comments and further statements."""
    checked = to_checked_sql(sql, dialect=dialect, dataset="cockpit")
    assert to_checked_sql(checked, dialect=dialect, dataset="cockpit") == checked
    assert len(sqlglot.parse(checked, read=dialect)) == 1
    assert "/*" not in checked


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", named_queries())
def test_queries_of_the_package_pass(name: str, dialect: str) -> None:
    assert to_checked_sql(named_query(name).text, dialect=dialect, dataset="cockpit")
    assert len(named_queries()[name]) > 30


def test_names_are_quoted_and_tables_qualified() -> None:
    checked = to_checked_sql(
        'WITH A AS (SELECT Id FROM Customers) SELECT b.id AS "x; y" FROM a AS "b""; --" -- x\n',
        dialect="postgres",
        dataset="cockpit",
    )
    assert checked == (
        'WITH "a" AS (SELECT "id" FROM "cockpit"."customers") SELECT "b"."id" AS "x; y" FROM "a" AS "b""; --"'
    )


def test_words_of_the_server_are_columns() -> None:
    """PostgreSQL would tell them without brackets; quoted, they are columns that nobody has."""
    for word in ("session_user", "current_role", "user", "system_user"):
        try:
            checked = to_checked_sql(f"SELECT {word} FROM customers", dialect="postgres", dataset="cockpit")
        except DeletionRefused:
            continue
        assert f'"{word}"' in checked


@pytest.mark.parametrize(
    "sql", ["SELECT INTERVAL '1' \"day; DROP TABLE x\"", "SELECT CAST('1' AS \"text; DROP TABLE x\")"]
)
def test_names_in_place_of_words(sql: str) -> None:
    """Versions of sqlglot differ in whether they take the name for a unit; it never comes out without quotes."""
    try:
        checked = to_checked_sql(sql, dialect="postgres", dataset="cockpit")
    except DeletionRefused:
        return
    assert '"day; DROP TABLE x"' in checked


_PIECES = r"""
SELECT FROM WHERE WITH AS customers cockpit . , ; ( ) * ' '' " $$ $1 -- /* */ = :: E' || INTO DELETE UNION ALL JOIN
LATERAL read_text pg_sleep CAST INTERVAL '1' day CASE END id x 1 [ ] { } ? : @ \ NULL AND ORDER BY LIMIT OVER VALUES
COPY TO SET
"""
_WORDS = st.sampled_from([*_PIECES.split(), "\n"])


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=300, deadline=None)
@given(sql=st.text(max_size=60) | st.lists(_WORDS, max_size=25).map(" ".join))
def test_any_text_is_refused_or_comes_out_as_one_select(dialect: str, sql: str) -> None:
    try:
        checked = to_checked_sql(sql, dialect=dialect, dataset="cockpit")
    except DeletionRefused:
        return
    (tree,) = sqlglot.parse(checked, read=dialect)
    assert isinstance(tree, sqlglot.exp.Query)
    assert to_checked_sql(checked, dialect=dialect, dataset="cockpit") == checked
