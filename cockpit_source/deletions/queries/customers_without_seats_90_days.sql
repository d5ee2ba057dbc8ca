-- Customers, present, of whom no listed scope held a seat in the 90 days before the last run, with their relationships.
-- A count that the API does not tell counts as a seat. A customer, or a scope of it, that is known for less than 90
-- days, or a scope that was not read well last, rules the customer out. Each of its relationships is removed first.
WITH latest AS (
    SELECT tenant, MAX(started_at) - INTERVAL '90 days' AS since
    FROM runs
    GROUP BY tenant
), listed AS (
    SELECT s.tenant, s.customer_id, COUNT(*) AS scopes, MIN(s.first_seen_at) AS first_seen_at,
        SUM(CASE WHEN s.first_seen_at <= l.since AND s.last_outcome IN ('ok', 'empty') AND s.last_good_at IS NOT NULL
            THEN 0 ELSE 1 END) AS unfit
    FROM scopes s
    JOIN latest l ON l.tenant = s.tenant
    WHERE s.delisted_at IS NULL
    GROUP BY s.tenant, s.customer_id
), held AS (
    -- a scope that left the list holds nothing from then on
    SELECT h.tenant, h.customer_id,
        MAX(CASE WHEN h.valid_to IS NULL AND s.delisted_at IS NULL THEN 1 ELSE 0 END) AS holds_now,
        MAX(COALESCE(h.valid_to, s.delisted_at)) AS held_to
    FROM license_history h
    LEFT JOIN scopes s ON s.scope_key = h.scope_key
    WHERE h.total_licenses IS NULL OR h.total_licenses <> 0 OR h.consumed_licenses IS NULL
        OR h.consumed_licenses <> 0 OR h.suspended_licenses <> 0
    GROUP BY h.tenant, h.customer_id
), seated AS (
    SELECT DISTINCT h.tenant, h.customer_id
    FROM licenses h
    LEFT JOIN scopes s ON s.scope_key = h.scope_key
    WHERE s.delisted_at IS NULL
        AND (h.total_licenses IS NULL OR h.total_licenses <> 0 OR h.consumed_licenses IS NULL
            OR h.consumed_licenses <> 0 OR h.suspended_licenses <> 0)
), chosen AS (
    SELECT c.tenant, c.id,
        'no seats in ' || CAST(x.scopes AS VARCHAR) || ' listed scopes for at least 90 days'
        || COALESCE(', the last until ' || CAST(CAST(h.held_to AS DATE) AS VARCHAR), '')
        || ', first seen ' || CAST(CAST(x.first_seen_at AS DATE) AS VARCHAR) AS reason
    FROM customers c
    JOIN latest l ON l.tenant = c.tenant
    JOIN listed x ON x.tenant = c.tenant AND x.customer_id = c.id
    LEFT JOIN held h ON h.tenant = c.tenant AND h.customer_id = c.id
    LEFT JOIN seated g ON g.tenant = c.tenant AND g.customer_id = c.id
    WHERE c.removed_at IS NULL
        AND c.first_seen_at <= l.since
        AND x.unfit = 0
        AND g.customer_id IS NULL
        AND COALESCE(h.holds_now, 0) = 0
        AND (h.held_to IS NULL OR h.held_to < l.since)
)
SELECT DISTINCT 'remove_reseller_relationship' AS action, s.customer_id AS customer_id,
    s.provider_instance_id AS provider_instance_id, d.reason AS reason
FROM chosen d
JOIN scopes s ON s.tenant = d.tenant AND s.customer_id = d.id AND s.delisted_at IS NULL
UNION ALL
SELECT 'delete_customer' AS action, d.id AS customer_id, CAST(NULL AS VARCHAR) AS provider_instance_id,
    d.reason AS reason
FROM chosen d
