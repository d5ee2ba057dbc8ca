-- Grain: tenant, two days, customer, provider instance, SKU, and whether it is left out of totals as free.
-- Inputs: int_daily_inventory, int_days.
-- Question: which customers hold more or fewer seats than 1, 7 or 30 days before, split so that it sums to the change?
-- Filter on to_date and span_days: one pair of days is cheap.
{% set inventory = ref('int_daily_inventory') | string %}
{% set sides %}
{% for days in [1, 7, 30] %}
{{ side('compared_on - ' ~ days, 'compared_on', days, 1, 0, inventory ~ ' where days_before = ' ~ days) }}
union all
{{ side('compared_on - ' ~ days, 'compared_on', days, 0, 1, inventory ~ ' where days_before = 0') }}
{{ '' if loop.last else 'union all' }}
{% endfor %}
{% endset %}
select changes.*
from (
{{ seat_changes(sides) }}
) changes
inner join {{ ref('int_days') }} days
    on days.tenant = changes.tenant and days.compared_on = changes.to_date and days.days_before = changes.span_days
