-- Grain: tenant and reseller.
-- Inputs: resellers, dim_customers.
-- Question: which resellers are there, and how many listed customers has each?
with sold_to as (
    select tenant, reseller_id, count(case when is_listed then 1 end) as customers, min(first_seen_at) as first_seen_at
    from {{ ref('dim_customers') }}
    where reseller_id is not null
    group by tenant, reseller_id
),

ids as (
    select tenant, id as reseller_id from {{ source('cockpit', 'resellers') }}
    union
    select tenant, reseller_id from sold_to
)

select
    ids.tenant, ids.reseller_id,
    coalesce(nullif(trim(r.company_name), ''), ids.reseller_id) as reseller_name,
    r.country,
    coalesce(s.customers, 0) as customers,
    coalesce(r.first_seen_at, s.first_seen_at) as first_seen_at,
    r.removed_at
from ids
left join {{ source('cockpit', 'resellers') }} r on r.tenant = ids.tenant and r.id = ids.reseller_id
left join sold_to s on s.tenant = ids.tenant and s.reseller_id = ids.reseller_id
