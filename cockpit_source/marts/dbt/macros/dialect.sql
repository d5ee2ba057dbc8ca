{# What DuckDB and PostgreSQL write differently, and what the SELECTs share. Nothing else in this package names a dialect. #}

{# Whole numbers from 0 to `last`, one row each, in the list of a SELECT. #}
{% macro numbers_to(last) %}
    {%- if target.type == 'postgres' -%} generate_series(0, {{ last }})
    {%- else -%} unnest(range(0, {{ last }} + 1))
    {%- endif -%}
{% endmacro %}

{# The moment to take as now. #}
{% macro now() %}
    {%- if var('as_of', '') -%} cast('{{ var('as_of') }}' as timestamp with time zone)
    {%- else -%} current_timestamp
    {%- endif -%}
{% endmacro %}

{# The UTC day of a moment. #}
{% macro utc_date(moment) %}cast({{ moment }} at time zone 'UTC' as date){% endmacro %}

{# The moment at which a UTC day ends. #}
{% macro day_end(day) %}(cast({{ day }} + 1 as timestamp) at time zone 'UTC'){% endmacro %}

{# Hours from a moment to a later one, as a double. #}
{% macro hours_between(earlier, later) %}
    {{- "cast(extract(epoch from (" ~ later ~ ") - (" ~ earlier ~ ")) as double precision) / 3600" -}}
{% endmacro %}

{# A whole number as text, with a comma before every three digits. #}
{% macro grouped(number) %}
    {%- if target.type == 'postgres' -%} to_char({{ number }}, 'FM9,999,999,999,999,999,990')
    {%- else -%} printf('%,d', {{ number }})
    {%- endif -%}
{% endmacro %}

{# A sum of whole numbers; NULL when none is known. #}
{% macro sum_of(value) %}cast(sum({{ value }}) as bigint){% endmacro %}

{# A ratio of sums; NULL over zero. #}
{% macro ratio(part, whole) %}cast({{ part }} as double precision) / nullif({{ whole }}, 0){% endmacro %}
