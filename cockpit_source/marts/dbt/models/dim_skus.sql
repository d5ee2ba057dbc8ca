-- Grain: tenant and SKU.
-- Inputs: license_history, scopes, int_counted_scopes, licenses, sku_catalog, free_skus, int_sku_prices.
-- Question: which products are there, what are they called, when was each first and last seen, and are they free?
-- last seen when the scope was last read well, since one that left the list keeps its last versions
with seen as (
    select
        h.tenant, h.sku_id,
        {{ utc_date('min(h.valid_from)') }} as first_seen_date,
        {{ utc_date('max(coalesce(h.valid_to, s.last_good_at))') }} as last_seen_date
    from {{ source('cockpit', 'license_history') }} h
    inner join {{ source('cockpit', 'scopes') }} s on s.scope_key = h.scope_key
    group by h.tenant, h.sku_id
),

-- of several names the one that held last
named as (
    select tenant, sku_id, sku_name
    from (
        select
            tenant, sku_id, trim(sku_name) as sku_name,
            row_number() over (
                partition by tenant, sku_id
                order by max(coalesce(valid_to, {{ now() }})) desc, max(valid_from) desc, trim(sku_name)
            ) as place
        from {{ source('cockpit', 'license_history') }}
        where trim(sku_name) <> ''
        group by tenant, sku_id, trim(sku_name)
    ) ranked
    where place = 1
),

held as (
    select s.tenant, l.sku_id, count(distinct s.customer_id) as customers
    from {{ ref('int_counted_scopes') }} s
    inner join {{ source('cockpit', 'licenses') }} l on l.scope_key = s.scope_key
    group by s.tenant, l.sku_id
)

select
    s.tenant, s.sku_id,
    coalesce(c.official_name, n.sku_name, s.sku_id) as sku_name,
    n.sku_name as api_name,
    c.official_name,
    c.part_number,
    c.service_plans,
    coalesce(c.official_name, nullif(lower(n.sku_name), s.sku_id)) is not null as is_name_known,
    f.sku_id is not null as is_free,
    s.first_seen_date, s.last_seen_date,
    coalesce(h.customers, 0) as customers,
    p.unit_price, p.currency
from seen s
left join named n on n.tenant = s.tenant and n.sku_id = s.sku_id
left join held h on h.tenant = s.tenant and h.sku_id = s.sku_id
left join {{ source('cockpit', 'sku_catalog') }} c on c.tenant = s.tenant and c.sku_id = s.sku_id
left join {{ ref('free_skus') }} f on f.sku_id = s.sku_id
left join {{ ref('int_sku_prices') }} p on p.tenant = s.tenant and p.sku_id = s.sku_id
