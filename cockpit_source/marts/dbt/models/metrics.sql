-- Grain: measure.
-- Inputs: none; the SQL in it reads the marts.
-- Question: what does each measure mean, in which unit and grain, and how is it computed? The SQL runs as it is.
{% set inventory = ref('fct_current_inventory') | string -%}
{% set totals = ref('fct_daily_totals') | string -%}
{% set today = utc_date(now()) | trim -%}
{% set reclaimable = ref('fct_reclaimable_seats') | string -%}
{% set health = ref('scope_health') | string -%}
{% set measures = [
    ('total_seats', 'seats', 'tenant', 'Seats of all SKUs but free and viral ones; by Microsoft\'s model active and in warning, without suspended ones.',
     'select tenant, sum(total_seats) as value from ' ~ inventory ~ ' where not is_free group by tenant'),
    ('assigned_seats', 'seats', 'tenant', 'Of these, seats assigned to users. The API knows assignment, not activity.',
     'select tenant, sum(assigned_seats) as value from ' ~ inventory ~ ' where not is_free group by tenant'),
    ('unassigned_seats', 'seats', 'tenant', 'Seats not assigned, as the API gives them: an over-assigned row counts negative.',
     'select tenant, sum(unassigned_seats) as value from ' ~ inventory ~ ' where not is_free group by tenant'),
    ('suspended_seats', 'seats', 'tenant', 'Seats of suspended subscriptions.',
     'select tenant, sum(suspended_seats) as value from ' ~ inventory ~ ' where not is_free group by tenant'),
    ('assignment_rate', 'ratio', 'tenant', 'Sum of assigned seats over sum of seats, of rows that tell both; may exceed 1, NULL over zero.',
     'select tenant, cast(sum(case when total_seats is not null then assigned_seats end) as double precision) / nullif(sum(case when assigned_seats is not null then total_seats end), 0) as value from ' ~ inventory ~ ' where not is_free group by tenant'),
    ('left_out_seats', 'seats', 'tenant', 'Seats of free and viral SKUs, which the other measures leave out: a seed list, and rows of 10,000 seats and more that no price above 0 speaks for.',
     'select tenant, sum(total_seats) as value from ' ~ inventory ~ ' where is_free group by tenant'),
    ('reclaimable_seats', 'seats', 'tenant', 'Unassigned seats of rows that have any, free and viral SKUs left out.',
     'select tenant, sum(reclaimable_seats) as value from ' ~ reclaimable ~ ' group by tenant'),
    ('reclaimable_cost', 'currency', 'tenant and currency', 'Reclaimable seats times the price that holds today; seats without a price are left out, see reclaimable_priced_share.',
     'select tenant, currency, sum(reclaimable_cost) as value from ' ~ reclaimable ~ ' where unit_price is not null group by tenant, currency'),
    ('reclaimable_priced_share', 'ratio', 'tenant', 'Reclaimable seats that have a price, over all reclaimable seats.',
     'select tenant, cast(sum(case when unit_price is not null then reclaimable_seats else 0 end) as double precision) / nullif(sum(reclaimable_seats), 0) as value from ' ~ reclaimable ~ ' group by tenant'),
    ('seat_change_7_days', 'seats', 'tenant', 'Change of total_seats against the end of the day 7 days ago; NULL before there was one.',
     'select a.tenant, a.total_seats - b.total_seats as value from ' ~ totals ~ ' a left join (select * from ' ~ totals ~ ' where snapshot_date = ' ~ today ~ ' - 7) b on b.tenant = a.tenant and b.is_free = a.is_free where a.snapshot_date = ' ~ today ~ ' and not a.is_free'),
    ('seat_change_30_days', 'seats', 'tenant', 'Change of total_seats against the end of the day 30 days ago; NULL before there was one.',
     'select a.tenant, a.total_seats - b.total_seats as value from ' ~ totals ~ ' a left join (select * from ' ~ totals ~ ' where snapshot_date = ' ~ today ~ ' - 30) b on b.tenant = a.tenant and b.is_free = a.is_free where a.snapshot_date = ' ~ today ~ ' and not a.is_free'),
    ('customers', 'customers', 'tenant', 'Customers that hold a SKU which is not free or viral.',
     'select tenant, count(distinct customer_id) as value from ' ~ inventory ~ ' where not is_free group by tenant'),
    ('scopes_listed', 'scopes', 'tenant', 'Scopes of the last full list: customer, provider instance and reseller, one call each.',
     'select tenant, count(*) as value from ' ~ health ~ ' where is_listed group by tenant'),
    ('coverage', 'ratio', 'tenant', 'Listed scopes that the last run read well, over all listed scopes.',
     'select tenant, cast(sum(case when state = \'good\' then 1 else 0 end) as double precision) / nullif(count(*), 0) as value from ' ~ health ~ ' where is_listed group by tenant'),
    ('oldest_read_hours', 'hours', 'tenant', 'Age of the oldest good read among listed scopes that were ever read well.',
     'select tenant, max(age_hours) as value from ' ~ health ~ ' where is_listed group by tenant'),
] -%}
{% for metric, unit, grain, definition, query in measures %}
select
    '{{ metric }}' as metric,
    '{{ unit }}' as unit,
    '{{ grain }}' as grain,
    '{{ definition | replace("'", "''") }}' as definition,
    '{{ query | replace("'", "''") }}' as sql
{{ '' if loop.last else 'union all' }}
{% endfor %}
