-- Grain: a row of int_days and a counted scope.
-- Inputs: int_days, int_day_reads, scopes, scope_runs.
-- Question: which scopes were listed at the end of a day, when was each last read well by then, and which of several
-- scopes of one customer in one provider instance is counted?
-- By days, as pruned scope_runs are: where the second list of a day lacks a scope that comes back on a later day, it
-- shows until the next day with a list.
with read_since_list as (
    select
        d.tenant, d.compared_on, d.days_before, r.scope_key,
        max(case when r.outcome in ('ok', 'empty') then r.observed_at end) as last_good_at,
        max(case when d.list_ended_on is null or d.read_date <= d.list_ended_on then 1 else 0 end) as is_listed
    from {{ ref('int_day_reads') }} d
    inner join {{ source('cockpit', 'scope_runs') }} r
        on r.tenant = d.tenant
        and {{ utc_date('r.observed_at') }} = d.read_date
        and r.observed_at < d.day_end
    group by d.tenant, d.compared_on, d.days_before, r.scope_key
),

listed as (
    select
        d.tenant, d.compared_on, d.days_before, d.day_end,
        s.scope_key, s.customer_id, s.provider_instance_id, s.reseller_id, r.last_good_at
    from {{ ref('int_days') }} d
    inner join {{ source('cockpit', 'scopes') }} s
        on s.tenant = d.tenant
        and s.first_seen_at < d.day_end
        and (s.delisted_at is null or s.delisted_at >= d.day_end)
    left join read_since_list r
        on r.tenant = d.tenant and r.compared_on = d.compared_on and r.days_before = d.days_before
        and r.scope_key = s.scope_key
    -- a scope that never stood in a full list, or was not known yet, was given by hand, and cannot have left one
    where
        coalesce(r.is_listed, 0) = 1 or s.last_listed_run_id is null or d.list_ended_on is null
        or {{ utc_date('s.first_seen_at') }} > d.list_ended_on
),

read_earlier as (
    select l.tenant, l.compared_on, l.days_before, l.scope_key, max(r.observed_at) as last_good_at
    from listed l
    inner join {{ source('cockpit', 'scope_runs') }} r
        on r.scope_key = l.scope_key and r.outcome in ('ok', 'empty') and r.observed_at < l.day_end
    where l.last_good_at is null
    group by l.tenant, l.compared_on, l.days_before, l.scope_key
),

read_well as (
    select
        l.tenant, l.compared_on, l.days_before, l.day_end,
        l.scope_key, l.customer_id, l.provider_instance_id, l.reseller_id,
        coalesce(l.last_good_at, e.last_good_at) as last_good_at
    from listed l
    left join read_earlier e
        on e.tenant = l.tenant and e.compared_on = l.compared_on and e.days_before = l.days_before
        and e.scope_key = l.scope_key
),

placed as (
    select
        *,
        {{ place_of_scope('tenant, compared_on, days_before, customer_id, provider_instance_id', 'last_good_at') }}
            as place
    from read_well
    where last_good_at is not null
)

select
    tenant, compared_on, days_before, day_end, scope_key, customer_id, provider_instance_id, reseller_id, last_good_at
from placed
where place = 1
