-- Grain: tenant, customer, provider instance and SKU.
-- Inputs: int_counted_scopes, licenses, dim_customers, dim_skus, provider_instances, free_skus, int_sku_prices.
-- Question: which seats does each customer hold now, how many are assigned, and how old is that knowledge?
with held as (
    select
        s.tenant, s.customer_id, s.provider_instance_id, l.sku_id,
        max(s.reseller_id) as scope_reseller_id,
        min(s.scope_key) as scope_key,
        count(distinct s.scope_key) as scopes_counted,
        {{ sum_of('l.total_licenses') }} as total_seats,
        {{ sum_of('l.consumed_licenses') }} as assigned_seats,
        {{ sum_of('l.available_licenses') }} as unassigned_seats,
        {{ sum_of('l.suspended_licenses') }} as suspended_seats,
        min(s.last_good_at) as observed_at,
        max(case when s.is_stale then 1 else 0 end) = 1 as is_stale
    from {{ ref('int_counted_scopes') }} s
    inner join {{ source('cockpit', 'licenses') }} l on l.scope_key = s.scope_key
    group by s.tenant, s.customer_id, s.provider_instance_id, l.sku_id
),

with_reason as (
    select h.*, {{ free_reason('h.total_seats', 'f.reason', 'p.unit_price') }} as free_reason
    from held h
    left join {{ ref('free_skus') }} f on f.sku_id = h.sku_id
    left join {{ ref('int_sku_prices') }} p on p.tenant = h.tenant and p.sku_id = h.sku_id
)

select
    h.tenant, h.customer_id, c.customer_name, h.provider_instance_id,
    coalesce(i.alias, h.provider_instance_id) as provider_instance_name,
    coalesce(h.scope_reseller_id, c.reseller_id) as reseller_id,
    r.company_name as reseller_name,
    h.sku_id, k.sku_name,
    h.total_seats, h.assigned_seats, h.unassigned_seats, h.suspended_seats,
    {{ ratio('h.assigned_seats', 'h.total_seats') }} as assignment_rate,
    h.free_reason is not null as is_free,
    h.free_reason,
    h.scope_key, h.scopes_counted, h.observed_at,
    {{ hours_between('h.observed_at', now()) }} as age_hours,
    h.is_stale
from with_reason h
left join {{ ref('dim_customers') }} c on c.tenant = h.tenant and c.customer_id = h.customer_id
left join {{ ref('dim_skus') }} k on k.tenant = h.tenant and k.sku_id = h.sku_id
left join {{ source('cockpit', 'provider_instances') }} i on i.tenant = h.tenant and i.id = h.provider_instance_id
left join {{ source('cockpit', 'resellers') }} r
    on r.tenant = h.tenant and r.id = coalesce(h.scope_reseller_id, c.reseller_id)
