-- Grain: as fct_seat_changes, between the UTC days of the variables from_date and to_date.
-- Inputs: fct_daily_inventory.
-- Question: which customers hold more or fewer seats on one day than on another, whichever they are?
{% set inventory = ref('fct_daily_inventory') | string %}
{% set from_date = "cast('" ~ var('from_date', '2000-01-01') ~ "' as date)" %}
{% set to_date = "cast('" ~ var('to_date', '2000-01-02') ~ "' as date)" %}
{% set span_days = to_date ~ ' - ' ~ from_date %}
{% set sides %}
{{ side(from_date, to_date, span_days, 1, 0, inventory ~ ' where snapshot_date = ' ~ from_date) }}
union all
{{ side(from_date, to_date, span_days, 0, 1, inventory ~ ' where snapshot_date = ' ~ to_date) }}
{% endset %}
{{ seat_changes(sides) }}
