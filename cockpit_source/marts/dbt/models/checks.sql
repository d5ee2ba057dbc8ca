-- Grain: tenant and check.
-- Inputs: runs, licenses, scopes.
-- Question: what do the data themselves tell of what the API's documents leave open?
with rows_now as (
    select
        l.tenant, l.customer_id, l.provider_instance_id, l.sku_id, l.scope_key,
        l.total_licenses as total, l.consumed_licenses as assigned, l.available_licenses as unassigned,
        l.suspended_licenses as suspended
    from {{ source('cockpit', 'licenses') }} l
    inner join {{ source('cockpit', 'scopes') }} s on s.scope_key = l.scope_key
    where s.delisted_at is null
),

-- a row without suspended seats cannot tell the two identities apart
identities as (
    select
        tenant, 'unassigned_is_total_less_assigned' as check_name,
        case when unassigned = total - assigned then 1 else 0 end as is_holding,
        case when suspended <> 0 then 1 else 0 end as is_telling
    from rows_now
    where total is not null and assigned is not null and unassigned is not null and suspended is not null
    union all
    select
        tenant, 'unassigned_is_total_less_assigned_and_suspended',
        case when unassigned = total - assigned - suspended then 1 else 0 end,
        case when suspended <> 0 then 1 else 0 end
    from rows_now
    where total is not null and assigned is not null and unassigned is not null and suspended is not null
),

told as (
    select
        tenant, customer_id, provider_instance_id, sku_id, scope_key,
        {{ sum_of('total') }} as total,
        {{ sum_of('assigned') }} as assigned
    from rows_now
    group by tenant, customer_id, provider_instance_id, sku_id, scope_key
),

scopes_of as (
    select tenant, customer_id, provider_instance_id, count(*) as scopes
    from {{ source('cockpit', 'scopes') }}
    where delisted_at is null and last_good_at is not null
    group by tenant, customer_id, provider_instance_id
    having count(*) > 1
),

reseller_scopes as (
    select
        t.tenant, 'reseller_scopes_agree' as check_name,
        case
            when count(*) = max(o.scopes)
                and count(distinct coalesce(t.total, -1)) = 1
                and count(distinct coalesce(t.assigned, -1)) = 1
            then 1 else 0
        end as is_holding,
        1 as is_telling
    from told t
    inner join scopes_of o
        on o.tenant = t.tenant and o.customer_id = t.customer_id and o.provider_instance_id = t.provider_instance_id
    group by t.tenant, t.customer_id, t.provider_instance_id, t.sku_id
),

counted as (
    select
        tenant, check_name,
        count(*) as rows_checked, sum(is_holding) as rows_holding,
        sum(is_telling) as rows_telling, sum(is_telling * is_holding) as rows_telling_and_holding
    from (select * from identities union all select * from reseller_scopes) cases
    group by tenant, check_name
),

questions as (
    select
        'unassigned_is_total_less_assigned' as check_name,
        'Do totals leave suspended seats out?' as question,
        'available = total - consumed; only rows with suspended seats tell' as definition
    union all
    select
        'unassigned_is_total_less_assigned_and_suspended',
        'Do totals include suspended seats?',
        'available = total - consumed - suspended; only rows with suspended seats tell'
    union all
    select
        'reseller_scopes_agree',
        'Do the scopes of one customer, with and without reseller, tell the same?',
        'every scope of the customer and provider instance lists the SKU with the same total and consumed'
)

select
    t.tenant, q.check_name, q.question, q.definition,
    cast(coalesce(c.rows_checked, 0) as bigint) as rows_checked,
    cast(coalesce(c.rows_holding, 0) as bigint) as rows_holding,
    cast(coalesce(c.rows_telling, 0) as bigint) as rows_telling,
    {{ ratio('c.rows_telling_and_holding', 'c.rows_telling') }} as share_holding,
    case when c.rows_telling > 0 then c.rows_telling_and_holding = c.rows_telling end as holds
from (select distinct tenant from {{ source('cockpit', 'runs') }}) t
cross join questions q
left join counted c on c.tenant = t.tenant and c.check_name = q.check_name
