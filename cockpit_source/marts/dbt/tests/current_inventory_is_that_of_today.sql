-- Grain: a row that only one of the two inventories has, or has otherwise.
-- Inputs: fct_current_inventory, fct_daily_inventory.
-- Question: do the inventory now and the one of today, each computed in its own way, tell the same?
{% set columns %}
tenant, customer_id, provider_instance_id, sku_id, total_seats, assigned_seats, unassigned_seats, suspended_seats, is_free
{% endset %}
with now_held as (
    select {{ columns }} from {{ ref('fct_current_inventory') }}
),

today_held as (
    select {{ columns }} from {{ ref('fct_daily_inventory') }}
    where snapshot_date = {{ utc_date(now()) }}
)

select 'now' as told_by, lacking.* from (select * from now_held except all select * from today_held) lacking
union all
select 'today', lacking.* from (select * from today_held except all select * from now_held) lacking
