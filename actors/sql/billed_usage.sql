-- What a provider has billed, and at which prices.

-- name: add_usage
-- Records that are not there yet.
INSERT INTO billed_usage (record, sku, unit, begin_us, end_us, quantity, endpoint, type)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::numeric[], $7::text[], $8::text[])
ON CONFLICT (record) DO NOTHING RETURNING record

-- name: contradicted
-- Of the same records those that were there before, and said otherwise.
SELECT kept.record
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::numeric[], $7::text[], $8::text[])
    AS told (record, sku, unit, begin_us, end_us, quantity, endpoint, type)
JOIN billed_usage AS kept USING (record)
WHERE (kept.sku, kept.unit, kept.begin_us, kept.end_us, kept.quantity, kept.endpoint, kept.type)
    IS DISTINCT FROM (told.sku, told.unit, told.begin_us, told.end_us, told.quantity, told.endpoint, told.type)
ORDER BY kept.record

-- name: set_prices
-- Prices as they stand now.
INSERT INTO list_price (sku, unit, from_us, until_us, currency, amount)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::numeric[])
ON CONFLICT (sku, unit, from_us) DO UPDATE
SET until_us = excluded.until_us, currency = excluded.currency, amount = excluded.amount

-- name: usage_of
-- Records of which some may lie in a stretch; one more than are read.
SELECT record, sku, unit, begin_us, end_us, quantity, endpoint, type FROM billed_usage
WHERE begin_us >= $1 AND begin_us < $3 AND end_us > $2 ORDER BY begin_us, record LIMIT $4

-- name: prices_of
-- All prices of some SKUs.
SELECT sku, unit, currency, from_us, until_us, amount FROM list_price WHERE sku = ANY($1::text[])
