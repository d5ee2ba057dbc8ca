"""The inventory in Dagster: `dagster dev -f pipelines/dagster_definitions.py`, with the project in COCKPIT_PROJECT.

Assets: `licence_tables`, one partition a tenant; `marts` and `report`, once for all tenants, after the loads. Every
tenant has a run of its own, so that what goes wrong with one costs no other. docs/schedules.md says what the
environment sets, how the exit codes of `cockpit load` show here, and what has to stand in dagster.yaml.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dlt import Pipeline

from cockpit_source import (
    CockpitError,
    LoadProgress,
    LoadResult,
    Settings,
    WarehouseBusy,
    WarehouseError,
    configured_tenants,
    create_pipeline,
    resolve_mart_settings,
    resolve_settings,
    run_load,
)
from cockpit_source.configuration import open_project, project_folder
from cockpit_source.errors import EXIT_FAILED, EXIT_GUARDED, EXIT_SOME_NOT_READ, NothingToRetry
from cockpit_source.html_report.command import write_report
from cockpit_source.status import Status, read_status
from cockpit_source.tenant_marts import MartTenant, refresh_tenants
from cockpit_source.warehouse import Warehouse

PROJECT = os.environ.get("COCKPIT_PROJECT")
DESTINATION = os.environ.get("COCKPIT_DESTINATION", "duckdb")
DATASET = os.environ.get("COCKPIT_DATASET", "cockpit")
RETRIES = int(os.environ.get("COCKPIT_RETRIES", "3"))
RETRY_SECONDS = float(os.environ.get("COCKPIT_RETRY_SECONDS", "300"))
MAX_AGE_HOURS = float(os.environ.get("COCKPIT_MAX_AGE_HOURS", "26"))
MIN_COVERAGE_PERCENT = float(os.environ.get("COCKPIT_MIN_COVERAGE_PERCENT", "95"))
MAX_DROP_PERCENT = float(os.environ.get("COCKPIT_MAX_ROW_DROP_PERCENT", "15"))

REPORT = os.environ.get("COCKPIT_REPORT", "report.html")
# only a DuckDB file has the read copy that it is made of
REPORTS = ["report"] if DESTINATION == "duckdb" else []

# the pool of everything that writes: a DuckDB file has one writer
POOL = "cockpit_database"
# the partition where no tenants have names
ONE_TENANT = "default"
# outcomes that another try may mend; what is refused stays so
PASSING = ("failed", "deferred", "skipped")
# of a run of Dagster: the runs of the load that it made, so that a retry knows that there was one
RUNS_TAG = "cockpit/runs"

open_project(None if PROJECT is None else Path(PROJECT))
TENANTS = configured_tenants()


def name_of(partition: str) -> tuple[str, ...]:
    """The name of the tenant of a partition, as an argument; none where no tenants have names."""
    return (partition,) if TENANTS else ()


def settings_of(partition: str) -> Settings:
    """The settings of the tenant of a partition."""
    return resolve_settings(*name_of(partition))


tenants = dg.StaticPartitionsDefinition(TENANTS or [ONE_TENANT])


class LoadConfig(dg.Config):
    """What a person may ask of one load, in the launchpad."""

    accept_drop: int = 0
    fresh: bool = False
    # for simulated days only
    as_of: str | None = None


def pipeline_of(tenant_key: str) -> Pipeline:
    """The pipeline of a tenant in the one dataset of all."""
    return create_pipeline(tenant_key, destination=DESTINATION, dataset=DATASET)


@dg.asset(partitions_def=tenants, pool=POOL, kinds={"dlt"})
def licence_tables(context: dg.AssetExecutionContext, config: LoadConfig) -> Iterator[dg.MaterializeResult]:
    """Licences, their history, scopes and runs of one tenant, as of `cockpit load`.

    A load that some scopes failed is tried again for these alone. The drop guard, a refused sign-in and a wrong
    configuration are not: they fail the run, which is what calls a person.
    """
    made = runs_made(context)
    try:
        settings = settings_of(context.partition_key)
        pipeline = pipeline_of(settings.tenant_key)
        result = load(context, config, pipeline, settings, retry_failed=bool(made))
    except NothingToRetry:
        # another run has read them meanwhile
        yield dg.MaterializeResult(metadata=describe_run(pipeline, made[-1]))
        return
    except WarehouseBusy as busy:
        retry(context, str(busy))
        raise dg.Failure(str(busy), allow_retries=False) from None
    except CockpitError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    made = [*made, result.run_id]
    context.instance.add_run_tags(context.run.run_id, {RUNS_TAG: " ".join(made)})
    code = result.exit_code
    if code == EXIT_FAILED and len(made) > 1:
        # none of those that the run before had left; the others are loaded
        code = EXIT_SOME_NOT_READ
    if code == EXIT_SOME_NOT_READ and any(result.outcomes.get(outcome) for outcome in PASSING):
        retry(context, f"{result.scopes_total - result.good} of {result.scopes_total} scopes were not read.")
    if code in (0, EXIT_SOME_NOT_READ, EXIT_GUARDED):
        yield dg.MaterializeResult(metadata=describe_run(pipeline, result.run_id) | {"runs": " ".join(made)})
    if code not in (0, EXIT_SOME_NOT_READ):
        raise dg.Failure(describe_failure(result, code), allow_retries=False)


def load(
    context: dg.AssetExecutionContext,
    config: LoadConfig,
    pipeline: Pipeline,
    settings: Settings,
    *,
    retry_failed: bool,
) -> LoadResult:
    """One run of the load; what it notes goes to the log of the step."""
    progress = LoadProgress()
    as_of = None if config.as_of is None else datetime.fromisoformat(config.as_of).astimezone(UTC)
    if as_of is not None:
        # history goes forward only
        as_of += timedelta(seconds=context.retry_number)
    try:
        return run_load(
            pipeline,
            settings,
            retry_failed=retry_failed,
            accept_drop=config.accept_drop,
            fresh=config.fresh and not context.retry_number,
            as_of=as_of,
            progress=progress,
        )
    finally:
        for note in progress.notes:
            context.log.info(note)


def runs_made(context: dg.AssetExecutionContext) -> list[str]:
    """The ids of the runs of the load that earlier tries of this step committed."""
    if not context.retry_number:
        return []
    run = context.instance.get_run_by_id(context.run.run_id)
    return run.tags.get(RUNS_TAG, "").split() if run else []


def retry(context: dg.AssetExecutionContext, why: str) -> None:
    """Ask for another try, or return when there were enough."""
    if context.retry_number < RETRIES:
        context.log.warning(f"{why} Trying again in {RETRY_SECONDS:g} s.")
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_SECONDS)


def describe_failure(result: LoadResult, code: int) -> str:
    """What a person has to know who is called, and how the drop guard is told to let go here."""
    if code == EXIT_GUARDED and result.guard_message:
        return f"{result.guard_message} Here: launch this partition again with accept_drop in its config."
    reason = result.sign_in_error or result.stop_reason
    if reason is None and result.unread_scopes:
        reason = result.unread_scopes[0].error_description
    return f"No scope could be read: {reason}" if not result.good else str(reason)


def describe_run(pipeline: Pipeline, run_id: str) -> dict[str, Any]:
    """The row of a run in the table `runs`, as metadata; the load is done, also where it cannot be read."""
    try:
        with Warehouse(pipeline).opened(read_only=True) as client:
            (row,) = client.rows("SELECT * FROM {runs} WHERE run_id = %s", run_id)
    except WarehouseError as error:
        return {"run_id": run_id, "not_read": str(error)}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
        if value is not None and not name.startswith("_dlt")
    }


CHECKS = {
    "coverage": "Enough of the listed scopes were read the last time that they were tried.",
    "staleness": "Every listed scope has a good read that is young enough.",
    "unusual_drops": "The last load took few licence rows away, and the drop guard held nothing back.",
}
SEVERITIES = [dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR]
# once the loads under way have ended; a tenant that was never loaded holds up no other
after_what_it_needs = dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset=licence_tables, description=text, automation_condition=after_what_it_needs)
        for name, text in CHECKS.items()
    ],
    pool=POOL,
)
def checks_of_tenants() -> Iterator[dg.AssetCheckResult]:
    """All checks over all tenants, so that a good one hides no bad one; it reads the tables and calls no API."""
    judged = {name: judge(name) for name in tenants.get_partition_keys()}
    for check in CHECKS:
        findings = {name: findings[check] for name, findings in judged.items()}
        bad = [finding for finding in findings.values() if not finding.passed]
        yield dg.AssetCheckResult(
            passed=not bad,
            check_name=check,
            asset_key=licence_tables.key,
            severity=max((finding.severity for finding in bad), key=SEVERITIES.index, default=SEVERITIES[0]),
            description="; ".join(f"{name}: {finding.text}" for name, finding in findings.items()),
            metadata={name: finding.percent for name, finding in findings.items()},
        )


@dataclass(frozen=True)
class Finding:
    """What a check says of one tenant. `percent`: of the listed scopes, or of the licence rows that are gone."""

    passed: bool
    severity: dg.AssetCheckSeverity
    percent: float
    text: str


def judge(name: str) -> dict[str, Finding]:
    """A finding of each check about one tenant."""
    try:
        settings = settings_of(name)
        pipeline = pipeline_of(settings.tenant_key)
        return {
            "coverage": judge_coverage(read_status(pipeline, settings.tenant_key, runs=1)),
            "staleness": judge_age(read_status(pipeline, settings.tenant_key, runs=1, max_age_hours=MAX_AGE_HOURS)),
            "unusual_drops": judge_drops(pipeline, settings.tenant_key),
        }
    except CockpitError as error:
        return dict.fromkeys(CHECKS, Finding(False, dg.AssetCheckSeverity.ERROR, 0.0, str(error)))


def judge_coverage(status: Status) -> Finding:
    """Warns where too few of the listed scopes were read the last time that they were tried."""
    read = status.listed - status.stale
    percent = 100 * read / status.listed if status.listed else 0.0
    text = f"{read} of {status.listed} listed scopes were read last"
    return Finding(percent >= MIN_COVERAGE_PERCENT, dg.AssetCheckSeverity.WARN, percent, text)


def judge_age(status: Status) -> Finding:
    """Warns of a listed scope without a young good read; an error where none has one."""
    severity = SEVERITIES[status.too_old == status.listed]
    percent = 100 * status.too_old / status.listed if status.listed else 100.0
    text = f"{status.too_old} of {status.listed} listed scopes have no good read in {MAX_AGE_HOURS:g} h"
    return Finding(percent == 0, severity, percent, text)


def judge_drops(pipeline: Pipeline, tenant_key: str) -> Finding:
    """Warns where the last load, with its retries, took many rows away; an error where the drop guard acted."""
    runs = read_status(pipeline, tenant_key, runs=RETRIES + 1).runs
    runs = tuple(run for run in runs if run.started_at > runs[0].started_at - timedelta(hours=12))
    lost = max(0, -sum(run.row_change for run in runs))
    before = lost + (count_rows(pipeline, tenant_key) if runs else 0)
    percent = 100 * lost / before if lost else 0.0
    text = f"{lost} of {before} licence rows are gone"
    if any(run.status == "guarded" for run in runs):
        return Finding(False, dg.AssetCheckSeverity.ERROR, percent, f"{text}, and the drop guard held scopes back")
    return Finding(percent <= MAX_DROP_PERCENT, dg.AssetCheckSeverity.WARN, percent, text)


def count_rows(pipeline: Pipeline, tenant_key: str) -> int:
    """Licence rows of the listed scopes of a tenant."""
    sql = """SELECT COUNT(*) AS held FROM {licenses} l JOIN {scopes} s ON s.scope_key = l.scope_key
             WHERE s.tenant = %s AND s.delisted_at IS NULL"""
    with Warehouse(pipeline).opened(read_only=True) as client:
        (row,) = client.rows(sql, tenant_key)
    return int(row["held"])


@dg.asset(deps=[licence_tables], pool=POOL, automation_condition=after_what_it_needs)
def marts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The views of `cockpit marts`, with price list and product names of each tenant; a list costs only its own."""
    failed: dict[str, CockpitError] = {}
    usable = []
    for name in tenants.get_partition_keys():
        try:
            settings = resolve_mart_settings(*name_of(name))
            usable.append(MartTenant(name, pipeline_of(settings.tenant_key), settings))
        except CockpitError as error:
            failed[name] = error
    created = None
    if usable:
        try:
            refreshed = refresh_tenants(usable, note=context.log.info)
            created = refreshed.marts
        except CockpitError as error:
            failed["all"] = error
        else:
            failed |= {lists.name: lists.error for lists in refreshed.tenants if lists.error is not None}
            for lists in refreshed.tenants:
                for note in lists.notes:
                    context.log.warning(f"{lists.name}: {note}")
    said = "; ".join(f"{name}: {error}" for name, error in failed.items())
    if any(isinstance(error, WarehouseBusy) for error in failed.values()):
        retry(context, said)
    if failed or created is None:
        raise dg.Failure(said, allow_retries=False)
    return dg.MaterializeResult(metadata={"views": len(created.names), "where": created.location})


@dg.asset(deps=[marts], automation_condition=after_what_it_needs)
def report() -> dg.MaterializeResult:
    """The overview as one HTML file, from the read copy of a DuckDB file."""
    try:
        out = project_folder() / REPORT
        written = write_report(out, destination=DESTINATION, database=None, dataset=DATASET)
    except CockpitError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    return dg.MaterializeResult(
        metadata={"file": dg.MetadataValue.path(out), "bytes": written.size, "run_id": written.run_id}
    )


load_job = dg.define_asset_job("load", selection=dg.AssetSelection.assets(licence_tables).without_checks())
checks_job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(licence_tables))
answers_job = dg.define_asset_job("answers", selection=["marts", *REPORTS])


@dg.schedule(job=load_job, cron_schedule="40 5 * * *", execution_timezone="UTC")
def every_morning(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """A load of every tenant, each in a run of its own; once a day, however often the tick is repeated."""
    for name in tenants.get_partition_keys():
        yield dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%d} {name}", partition_key=name)


# for loads that never began
look_daily = dg.ScheduleDefinition("look_daily", job=checks_job, cron_schedule="30 9 * * *", execution_timezone="UTC")


@dg.run_failure_sensor(monitor_all_code_locations=False)
def call_a_person(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """COCKPIT_CALL, as of cockpit_load.sh, gets what failed on its standard input."""
    command = os.environ.get("COCKPIT_CALL")
    if not command:
        return dg.SkipReason("COCKPIT_CALL is not set")
    run = context.dagster_run
    subject = f"cockpit load needs you: {run.job_name} failed, partition {run.tags.get('dagster/partition', 'none')}"
    message = [context.failure_event.message or ""]
    message += [event.step_failure_data.error_display_string for event in context.get_step_failure_events()]
    ended = subprocess.run(
        ["sh", "-c", command],
        input="\n\n".join(message),
        text=True,
        env=os.environ | {"COCKPIT_SUBJECT": subject, "COCKPIT_EXIT_CODE": "1"},
        timeout=60,
        check=False,
    )
    if ended.returncode:
        raise dg.Failure(f"COCKPIT_CALL ended with exit code {ended.returncode}")
    return None


defs = dg.Definitions(
    assets=[licence_tables, marts, *([report] if REPORTS else [])],
    asset_checks=[checks_of_tenants],
    jobs=[load_job, checks_job, answers_job],
    schedules=[every_morning, look_daily],
    sensors=[call_a_person],
    executor=dg.in_process_executor,
)
