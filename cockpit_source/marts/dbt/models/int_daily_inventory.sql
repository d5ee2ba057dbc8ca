-- Grain: a row of int_days, customer, provider instance and SKU.
-- Inputs: int_scope_days, license_history, free_skus, int_sku_prices.
-- Question: which seats did each customer hold at the end of a day, and how old was that knowledge?
with held as (
    select
        d.tenant, d.compared_on, d.days_before, d.customer_id, d.provider_instance_id, h.sku_id,
        max(d.day_end) as day_end,
        max(d.reseller_id) as reseller_id,
        max(h.sku_name) as sku_name,
        {{ sum_of('h.total_licenses') }} as total_seats,
        {{ sum_of('h.consumed_licenses') }} as assigned_seats,
        {{ sum_of('h.available_licenses') }} as unassigned_seats,
        {{ sum_of('h.suspended_licenses') }} as suspended_seats,
        min(d.last_good_at) as observed_at
    from {{ ref('int_scope_days') }} d
    inner join {{ source('cockpit', 'license_history') }} h
        on h.scope_key = d.scope_key
        and h.valid_from < d.day_end
        and (h.valid_to is null or h.valid_to >= d.day_end)
    group by d.tenant, d.compared_on, d.days_before, d.customer_id, d.provider_instance_id, h.sku_id
)

select
    h.tenant, h.compared_on, h.days_before, h.customer_id, h.provider_instance_id, h.reseller_id, h.sku_id, h.sku_name,
    h.total_seats, h.assigned_seats, h.unassigned_seats, h.suspended_seats,
    {{ free_reason('h.total_seats', 'f.reason', 'p.unit_price') }} is not null as is_free,
    h.observed_at,
    {{ hours_between('h.observed_at', 'least(h.day_end, ' ~ now() ~ ')') }} as age_hours
from held h
left join {{ ref('free_skus') }} f on f.sku_id = h.sku_id
left join {{ ref('int_sku_prices') }} p on p.tenant = h.tenant and p.sku_id = h.sku_id
