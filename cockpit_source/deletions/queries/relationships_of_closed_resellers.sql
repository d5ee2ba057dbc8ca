-- Relationships of customers, still listed, whose reseller is gone: from the listing of resellers or marked deleted.
-- One row for each provider instance in which such a customer is listed, alone or through that reseller.
SELECT DISTINCT
    'remove_reseller_relationship' AS action,
    s.customer_id AS customer_id,
    s.provider_instance_id AS provider_instance_id,
    'reseller ' || COALESCE(r.company_name, r.id) || ' is gone since ' || CAST(CAST(r.removed_at AS DATE) AS VARCHAR)
        AS reason
FROM customers c
JOIN resellers r ON r.tenant = c.tenant AND r.id = c.reseller_id
JOIN scopes s ON s.tenant = c.tenant AND s.customer_id = c.id
WHERE c.removed_at IS NULL
    AND r.removed_at IS NOT NULL
    AND s.delisted_at IS NULL
    AND (s.reseller_id IS NULL OR s.reseller_id = r.id)
