-- Grain: scope.
-- Inputs: scopes, scope_runs, dim_customers, provider_instances, resellers.
-- Question: when was each scope last read well, how old is that, for how many runs has it failed, and why?
select
    s.tenant, s.scope_key, s.customer_id, c.customer_name, s.provider_instance_id,
    coalesce(i.alias, s.provider_instance_id) as provider_instance_name,
    s.reseller_id, r.company_name as reseller_name,
    case
        when s.delisted_at is not null then 'delisted'
        when s.last_good_at is null then 'never read'
        when s.failing_runs > 0 then 'stale'
        else 'good'
    end as state,
    s.last_outcome,
    o.http_status, o.error_type, o.error_description as reason,
    s.last_good_at,
    {{ hours_between('s.last_good_at', now()) }} as age_hours,
    s.failing_runs,
    s.delisted_at is null as is_listed,
    s.delisted_at,
    s.has_active_gdap
from {{ source('cockpit', 'scopes') }} s
left join {{ source('cockpit', 'scope_runs') }} o on o.run_id = s.last_run_id and o.scope_key = s.scope_key
left join {{ ref('dim_customers') }} c on c.tenant = s.tenant and c.customer_id = s.customer_id
left join {{ source('cockpit', 'provider_instances') }} i on i.tenant = s.tenant and i.id = s.provider_instance_id
left join {{ source('cockpit', 'resellers') }} r on r.tenant = s.tenant and r.id = s.reseller_id
