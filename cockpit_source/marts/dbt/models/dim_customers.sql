-- Grain: tenant and customer.
-- Inputs: customers, scopes, resellers.
-- Question: who are the customers, who sells to them, and are they listed?
with of_scopes as (
    select
        tenant, customer_id,
        count(case when delisted_at is null then 1 end) as scopes,
        max(case when delisted_at is null then reseller_id end) as reseller_id,
        min(first_seen_at) as first_seen_at,
        max(last_good_at) as last_good_at
    from {{ source('cockpit', 'scopes') }}
    group by tenant, customer_id
),

ids as (
    select tenant, id as customer_id from {{ source('cockpit', 'customers') }}
    union
    select tenant, customer_id from of_scopes
),

named as (
    select
        ids.tenant, ids.customer_id,
        coalesce(nullif(trim(c.company_name), ''), ids.customer_id) as customer_name,
        nullif(trim(c.company_name), '') is not null as is_name_known
    from ids
    left join {{ source('cockpit', 'customers') }} c on c.tenant = ids.tenant and c.id = ids.customer_id
)

select
    ids.tenant, ids.customer_id, ids.customer_name,
    case
        when count(*) over (partition by ids.tenant, ids.customer_name) = 1 then ids.customer_name
        else ids.customer_name || ' (' || substring(ids.customer_id, 1, 8) || ')'
    end as customer_label,
    ids.is_name_known,
    c.country,
    coalesce(c.reseller_id, s.reseller_id) as reseller_id,
    r.company_name as reseller_name,
    c.internal_identifier,
    coalesce(s.scopes, 0) as scopes,
    least(coalesce(c.first_seen_at, s.first_seen_at), coalesce(s.first_seen_at, c.first_seen_at)) as first_seen_at,
    s.last_good_at,
    c.removed_at,
    coalesce(s.scopes, 0) > 0 as is_listed
from named ids
left join {{ source('cockpit', 'customers') }} c on c.tenant = ids.tenant and c.id = ids.customer_id
left join of_scopes s on s.tenant = ids.tenant and s.customer_id = ids.customer_id
left join {{ source('cockpit', 'resellers') }} r
    on r.tenant = ids.tenant and r.id = coalesce(c.reseller_id, s.reseller_id)
