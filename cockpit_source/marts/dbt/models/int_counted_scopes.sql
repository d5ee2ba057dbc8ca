-- Grain: counted scope.
-- Inputs: scopes.
-- Question: which listed scopes are counted now, when was each read well, and did the last run read it?
with read_well as (
    select tenant, scope_key, customer_id, provider_instance_id, reseller_id, last_good_at, failing_runs
    from {{ source('cockpit', 'scopes') }}
    where delisted_at is null and last_good_at is not null
),

placed as (
    select *, {{ place_of_scope('tenant, customer_id, provider_instance_id', 'last_good_at') }} as place
    from read_well
)

select
    tenant, scope_key, customer_id, provider_instance_id, reseller_id, last_good_at, failing_runs > 0 as is_stale
from placed
where place = 1
