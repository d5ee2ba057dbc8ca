-- Grain: a row of int_days and a counted scope.
-- Inputs: int_days, int_day_reads, scopes, scope_runs.
-- Question: which scopes were listed at the end of a day, when was each last read well by then, and which of several
-- scopes of one customer in one provider instance is counted?
-- By days, as pruned scope_runs are: where the second list of a day lacks a scope that comes back on a later day, it
-- shows until the next day with a list. Unions where one would write outer joins: a filter on compared_on then reaches
-- every table.
with read_since_list as not materialized (
    select
        d.tenant, d.compared_on, d.days_before, r.scope_key,
        max(d.day_end) as day_end,
        max(case when r.outcome in ('ok', 'empty') then r.observed_at end) as last_good_at
    from {{ ref('int_day_reads') }} d
    inner join {{ source('cockpit', 'scope_runs') }} r
        on r.tenant = d.tenant
        and {{ utc_date('r.observed_at') }} = d.read_date
        and r.observed_at < d.day_end
    where d.list_ended_on is not null
    group by d.tenant, d.compared_on, d.days_before, r.scope_key
    having min(d.read_date) <= max(d.list_ended_on)
),

listed as not materialized (
    select
        r.tenant, r.compared_on, r.days_before, r.day_end,
        s.scope_key, s.customer_id, s.provider_instance_id, s.reseller_id, s.first_seen_at, s.delisted_at,
        r.last_good_at
    from read_since_list r
    inner join {{ source('cockpit', 'scopes') }} s on s.scope_key = r.scope_key
    where s.last_listed_run_id is not null
    union all
    -- a scope that never stood in a full list, or was not known yet, was given by hand, and cannot have left one
    select
        d.tenant, d.compared_on, d.days_before, d.day_end,
        s.scope_key, s.customer_id, s.provider_instance_id, s.reseller_id, s.first_seen_at, s.delisted_at,
        null as last_good_at
    from {{ ref('int_days') }} d
    inner join {{ source('cockpit', 'scopes') }} s on s.tenant = d.tenant
    where
        s.last_listed_run_id is null or d.list_ended_on is null
        or {{ utc_date('s.first_seen_at') }} > d.list_ended_on
),

there as not materialized (
    select *
    from listed
    where first_seen_at < day_end and (delisted_at is null or delisted_at >= day_end)
),

read_well as (
    select
        tenant, compared_on, days_before, day_end, scope_key, customer_id, provider_instance_id, reseller_id,
        last_good_at
    from there
    where last_good_at is not null
    union all
    select
        t.tenant, t.compared_on, t.days_before, t.day_end, t.scope_key, t.customer_id, t.provider_instance_id,
        t.reseller_id, max(r.observed_at) as last_good_at
    from there t
    inner join {{ source('cockpit', 'scope_runs') }} r
        on r.scope_key = t.scope_key and r.outcome in ('ok', 'empty') and r.observed_at < t.day_end
    where t.last_good_at is null
    group by
        t.tenant, t.compared_on, t.days_before, t.day_end, t.scope_key, t.customer_id, t.provider_instance_id,
        t.reseller_id
),

placed as (
    select
        *,
        {{ place_of_scope('tenant, compared_on, days_before, customer_id, provider_instance_id', 'last_good_at') }}
            as place
    from read_well
)

select
    tenant, compared_on, days_before, day_end, scope_key, customer_id, provider_instance_id, reseller_id, last_good_at
from placed
where place = 1
