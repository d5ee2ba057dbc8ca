-- Grain: tenant, UTC day compared_on from the first run to today, and 0, 1, 7 or 30 days_before it.
-- Inputs: runs.
-- Question: which day is that (snapshot_date), and on which days was the last full list read that had ended by its end?
-- compared_on is carried through the models below, so that a filter on it reaches every day of a comparison.
with spans as (
    select tenant, {{ utc_date('min(started_at)') }} as first_date, {{ utc_date(now()) }} as last_date
    from {{ source('cockpit', 'runs') }}
    group by tenant
),

days as (
    select tenant, first_date, first_date + n as compared_on
    from (
        select tenant, first_date, cast({{ numbers_to('last_date - first_date') }} as integer) as n
        from spans
        where last_date >= first_date
    ) numbered
),

compared as (
    select d.tenant, d.compared_on, b.days_before, d.compared_on - b.days_before as snapshot_date
    from days d
    cross join (select 0 as days_before union all select 1 union all select 7 union all select 30) b
    where d.compared_on - b.days_before >= d.first_date
),

lists as (
    -- a list that was read in shards began with the first of them
    select
        tenant, finished_at,
        {{ utc_date('coalesce(list_begun_at, started_at)') }} as begun_on, {{ utc_date('finished_at') }} as ended_on
    from {{ source('cockpit', 'runs') }}
    -- also of a run that could read no scope: its list was complete, and load took scopes off by it
    where listing_complete and finished_at is not null
),

latest as (
    select d.tenant, d.compared_on, d.days_before, d.snapshot_date, max(l.finished_at) as finished_at
    from compared d
    left join lists l on l.tenant = d.tenant and l.ended_on <= d.snapshot_date
    group by d.tenant, d.compared_on, d.days_before, d.snapshot_date
)

select
    d.tenant, d.compared_on, d.days_before, d.snapshot_date,
    {{ day_end('d.snapshot_date') }} as day_end,
    min(l.begun_on) as list_begun_on,
    max(l.ended_on) as list_ended_on
from latest d
left join lists l on l.tenant = d.tenant and l.finished_at = d.finished_at
group by d.tenant, d.compared_on, d.days_before, d.snapshot_date
