-- Grain: a row of int_days, and a day at or before it whose reads tell of it: those since its last full list.
-- Inputs: int_days, runs.
-- Question: which days' rows of scope_runs have to be looked at for a day?
with run_days as (
    select tenant, {{ utc_date('started_at') }} as begun_on, {{ utc_date('coalesce(finished_at, started_at)') }} as ended_on
    from {{ source('cockpit', 'runs') }}
    group by 1, 2, 3
)

select d.tenant, d.compared_on, d.days_before, d.day_end, d.list_ended_on, looked.snapshot_date as read_date
from {{ ref('int_days') }} d
inner join {{ ref('int_days') }} looked
    on looked.tenant = d.tenant
    and looked.days_before = 0
    and looked.snapshot_date <= d.snapshot_date
    and (d.list_begun_on is null or looked.snapshot_date >= d.list_begun_on)
where exists (
    select 1
    from run_days r
    where r.tenant = looked.tenant and looked.snapshot_date between r.begun_on and r.ended_on
)
