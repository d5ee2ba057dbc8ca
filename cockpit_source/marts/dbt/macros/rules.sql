{# The rules of the measures, each in one place. #}

{# A number of things as text: 1 seat, 1,200 seats. #}
{% macro counted(number, thing) %}
    {{- grouped(number) }} || case {{ number }} when 1 then ' {{ thing }}' else ' {{ thing }}s' end
{%- endmacro %}

{# Of the scopes of a customer in a provider instance, the place of this one: the first is counted. #}
{% macro place_of_scope(partition, last_good_at) %}
    {%- if var('reseller_scopes', 'same') == 'parts' -%} 1
    {%- else -%}
    row_number() over (
        partition by {{ partition }}
        order by case when reseller_id is null then 0 else 1 end, {{ last_good_at }} desc, scope_key
    )
    {%- endif -%}
{% endmacro %}

{# Why a row is left out of totals, or NULL. Expects the row's total, the seed's reason and a price in scope. #}
{% macro free_reason(total, seed_reason, unit_price) %}
    case
        when {{ seed_reason }} is not null then {{ seed_reason }}
        when {{ total }} >= 10000 and coalesce({{ unit_price }}, 0) = 0 then '10,000 seats or more'
    end
{%- endmacro %}

{# One side of a comparison of two days: the rows of an inventory, as it was before (1, 0) or after (0, 1). #}
{% macro side(from_date, to_date, span_days, is_before, is_after, inventory) %}
    select
        tenant, {{ from_date }} as from_date, {{ to_date }} as to_date, {{ span_days }} as span_days,
        customer_id, provider_instance_id, reseller_id, sku_id, sku_name, is_free, total_seats, assigned_seats,
        {{ is_before }} as is_before, {{ is_after }} as is_after
    from {{ inventory }}
{%- endmacro %}

{# The seat changes between the days of `sides`, as one SELECT. #}
{% macro seat_changes(sides) %}
with sides as (
{{ sides }}
),

rows_of_both as (
    select
        tenant, from_date, to_date, span_days, customer_id, provider_instance_id, sku_id, is_free,
        coalesce(max(case when is_after = 1 then reseller_id end), max(reseller_id)) as reseller_id,
        coalesce(max(case when is_after = 1 then sku_name end), max(sku_name)) as sku_name,
        max(is_before) as was_there,
        max(is_after) as is_there,
        coalesce({{ sum_of('case when is_before = 1 then total_seats end') }}, 0) as seats_before,
        coalesce({{ sum_of('case when is_after = 1 then total_seats end') }}, 0) as seats_after,
        {{ sum_of('case when is_before = 1 then assigned_seats end') }} as assigned_before,
        {{ sum_of('case when is_after = 1 then assigned_seats end') }} as assigned_after
    from sides
    group by tenant, from_date, to_date, span_days, customer_id, provider_instance_id, sku_id, is_free
),

with_customer as (
    select
        *,
        max(was_there) over (partition by tenant, from_date, to_date, span_days, customer_id) as customer_was_there,
        max(is_there) over (partition by tenant, from_date, to_date, span_days, customer_id) as customer_is_there
    from rows_of_both
)

select
    tenant, from_date, to_date, span_days, customer_id, provider_instance_id, reseller_id, sku_id, sku_name, is_free,
    case
        when customer_was_there = 0 then 'new_customer'
        when customer_is_there = 0 then 'lost_customer'
        when was_there = 0 then 'new_sku'
        when is_there = 0 then 'lost_sku'
        when seats_after > seats_before then 'expansion'
        else 'contraction'
    end as kind,
    seats_before, seats_after, seats_after - seats_before as seat_change, assigned_before, assigned_after
from with_customer
where was_there <> is_there or seats_before <> seats_after
{%- endmacro %}
