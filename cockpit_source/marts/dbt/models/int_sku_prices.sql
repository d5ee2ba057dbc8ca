-- Grain: tenant and SKU with a price that holds now.
-- Inputs: sku_prices.
-- Question: what does a seat of the SKU cost today?
select tenant, sku_id, unit_price, currency, valid_from
from (
    select *, row_number() over (partition by tenant, sku_id order by valid_from desc) as place
    from {{ source('cockpit', 'sku_prices') }}
    where valid_from <= {{ utc_date(now()) }}
) dated
where place = 1
