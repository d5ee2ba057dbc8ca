-- Grain: tenant, UTC day, and whether free and viral SKUs.
-- Inputs: fct_daily_inventory.
-- Question: how did all seats of the tenant develop?
select
    tenant, snapshot_date, is_free,
    count(distinct customer_id) as customers,
    {{ sum_of('total_seats') }} as total_seats,
    {{ sum_of('assigned_seats') }} as assigned_seats,
    {{ sum_of('unassigned_seats') }} as unassigned_seats,
    {{ sum_of('suspended_seats') }} as suspended_seats,
    min(observed_at) as oldest_observed_at
from {{ ref('fct_daily_inventory') }}
group by tenant, snapshot_date, is_free
