-- Grain: tenant, customer, provider instance and SKU with unassigned seats; free and viral SKUs are left out.
-- Inputs: fct_current_inventory, int_sku_prices.
-- Question: which seats could be given back, and what do they cost? Costs of several currencies do not add up.
select
    i.tenant, i.customer_id, i.customer_name, i.provider_instance_id, i.provider_instance_name, i.reseller_id,
    i.reseller_name, i.sku_id, i.sku_name, i.total_seats, i.assigned_seats,
    i.unassigned_seats as reclaimable_seats,
    p.unit_price, p.currency, p.valid_from as price_valid_from,
    i.unassigned_seats * p.unit_price as reclaimable_cost,
    i.observed_at, i.age_hours, i.is_stale
from {{ ref('fct_current_inventory') }} i
left join {{ ref('int_sku_prices') }} p on p.tenant = i.tenant and p.sku_id = i.sku_id
where i.unassigned_seats > 0 and not i.is_free
