-- Grain: tenant, kind, customer, provider instance and SKU; of the kind stale without SKU, one row a scope.
-- Inputs: fct_current_inventory, fct_seat_changes, int_counted_scopes, license_history, scope_health, dim_skus.
-- Question: what should somebody look at, and why?
with inventory as (
    select * from {{ ref('fct_current_inventory') }}
),

-- unassigned in every version that held in the last 30 days, of SKUs that were there all that time; in hours, since a
-- day is longer or shorter where the session's time zone changes its clock
idle as (
    select s.tenant, s.customer_id, s.provider_instance_id, h.sku_id
    from {{ ref('int_counted_scopes') }} s
    inner join {{ source('cockpit', 'license_history') }} h on h.scope_key = s.scope_key
    where h.valid_to is null or h.valid_to > {{ now() }} - interval '720' hour
    group by s.tenant, s.customer_id, s.provider_instance_id, h.sku_id
    having
        max(coalesce(h.consumed_licenses, 1)) = 0
        and min(coalesce(h.total_licenses, 0)) > 0
        and min(h.valid_from) <= {{ now() }} - interval '720' hour
),

week as (
    select *
    from {{ ref('fct_seat_changes') }}
    where to_date = {{ utc_date(now()) }} and span_days = 7
        and kind in ('expansion', 'contraction')
        and abs(seat_change) >= 10 and 2 * abs(seat_change) >= seats_before
),

found as (
    select i.*, 'over_assigned' as kind, 'more seats assigned than there are: ' || {{ grouped('assigned_seats - total_seats') }} as detail
    from inventory i
    where assigned_seats > total_seats
    union all
    select i.*, 'suspended_but_assigned', {{ counted('suspended_seats', 'seat') }} || ' suspended, and ' || {{ grouped('assigned_seats') }} || ' assigned'
    from inventory i
    where suspended_seats > 0 and assigned_seats > 0
    union all
    select i.*, 'full', 'every seat is assigned'
    from inventory i
    where total_seats > 0 and assigned_seats = total_seats and not is_free
    union all
    select i.*, 'unassigned_30_days', 'no seat was assigned in the last 30 days'
    from inventory i
    inner join idle
        on idle.tenant = i.tenant and idle.customer_id = i.customer_id
        and idle.provider_instance_id = i.provider_instance_id and idle.sku_id = i.sku_id
    where not i.is_free
    union all
    select i.*, 'sudden_change', 'seats from ' || {{ grouped('w.seats_before') }} || ' to ' || {{ grouped('w.seats_after') }} || ' within 7 days'
    from inventory i
    inner join week w
        on w.tenant = i.tenant and w.customer_id = i.customer_id
        and w.provider_instance_id = i.provider_instance_id and w.sku_id = i.sku_id and w.is_free = i.is_free
    where not i.is_free
    union all
    select i.*, 'unknown_name', 'neither the API nor the catalogue names this SKU'
    from inventory i
    inner join {{ ref('dim_skus') }} k on k.tenant = i.tenant and k.sku_id = i.sku_id
    where not k.is_name_known
)

select
    tenant, kind, customer_id, customer_name, provider_instance_id, provider_instance_name, reseller_id, reseller_name,
    sku_id, sku_name, total_seats, assigned_seats, suspended_seats, detail, observed_at, age_hours
from found
union all
select
    tenant, 'stale', customer_id, customer_name, provider_instance_id, provider_instance_name, reseller_id, reseller_name,
    null, null, null, null, null,
    case
        when state = 'never read' then 'never read: '
        else 'not read for ' || failing_runs || case failing_runs when 1 then ' run: ' else ' runs: ' end
    end || coalesce(reason, last_outcome),
    last_good_at, age_hours
from {{ ref('scope_health') }}
where state in ('stale', 'never read')
