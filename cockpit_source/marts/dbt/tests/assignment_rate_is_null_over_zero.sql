-- Grain: as fct_current_inventory, where the rate is there without seats, or lacks with them.
-- Inputs: fct_current_inventory.
-- Question: is a rate told exactly where there is something to divide by?
select tenant, customer_id, provider_instance_id, sku_id, total_seats, assigned_seats, assignment_rate
from {{ ref('fct_current_inventory') }}
where (assignment_rate is not null) <> (coalesce(total_seats, 0) <> 0 and assigned_seats is not null)
