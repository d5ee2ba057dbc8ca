{# No value lacks in these columns. As dbt's `not_null` of each, in one reading: a reading of a view costs what it costs. #}
{% test filled(model, columns) %}
select *
from {{ model }}
where {{ columns | join(' is null or ') }} is null
{% endtest %}
