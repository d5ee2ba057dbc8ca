-- Grain: tenant, two days, and whether free, where the seat changes do not sum to the difference of the days' totals.
-- Inputs: int_days, fct_daily_totals, fct_seat_changes.
-- Question: does the split into kinds of changes lose or invent a seat?
with pairs as (
    select d.tenant, d.compared_on as to_date, d.snapshot_date as from_date, d.days_before as span_days, f.is_free
    from {{ ref('int_days') }} d
    cross join (select true as is_free union all select false) f
    where d.days_before > 0
),

changed as (
    select tenant, to_date, span_days, is_free, {{ sum_of('seat_change') }} as seat_change
    from {{ ref('fct_seat_changes') }}
    group by tenant, to_date, span_days, is_free
)

select p.*, before_it.total_seats as seats_before, after_it.total_seats as seats_after, c.seat_change
from pairs p
left join {{ ref('fct_daily_totals') }} before_it
    on before_it.tenant = p.tenant and before_it.snapshot_date = p.from_date and before_it.is_free = p.is_free
left join {{ ref('fct_daily_totals') }} after_it
    on after_it.tenant = p.tenant and after_it.snapshot_date = p.to_date and after_it.is_free = p.is_free
left join changed c
    on c.tenant = p.tenant and c.to_date = p.to_date and c.span_days = p.span_days and c.is_free = p.is_free
where coalesce(after_it.total_seats, 0) - coalesce(before_it.total_seats, 0) <> coalesce(c.seat_change, 0)
