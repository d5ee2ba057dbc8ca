-- Grain: tenant, UTC day, customer, provider instance and SKU.
-- Inputs: int_daily_inventory.
-- Question: which seats did each customer hold at the end of a day, also of one without a run, and how old was that
-- knowledge? Filter on snapshot_date: a single day is cheap.
select
    tenant, compared_on as snapshot_date, customer_id, provider_instance_id, reseller_id, sku_id, sku_name,
    total_seats, assigned_seats, unassigned_seats, suspended_seats, is_free, observed_at, age_hours
from {{ ref('int_daily_inventory') }}
where days_before = 0
