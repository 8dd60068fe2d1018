-- Every statement about cached results: a name, a comment, the SQL.

-- name: find_result
-- One result by its key.
SELECT function, created_at, data, digest FROM results WHERE key = ?;

-- name: use_result
-- It was given to somebody.
UPDATE results SET used_at = :now, hits = hits + 1 WHERE key = :key;

-- name: put_result
-- A new result; the same call's later one takes its place.
INSERT INTO results (key, function, created_at, used_at, size, data, digest)
VALUES (:key, :function, :now, :now, :size, :data, :digest)
ON CONFLICT (key) DO UPDATE SET function = excluded.function, created_at = excluded.created_at,
    used_at = excluded.used_at, size = excluded.size, data = excluded.data, digest = excluded.digest;

-- name: remove_result
-- Gone, or its blob is.
DELETE FROM results WHERE key = ?;

-- name: remove_old_results
-- Not used for long.
DELETE FROM results WHERE used_at < ? RETURNING id;

-- name: remove_excess_results
-- The least recently used, as long as those used later fill the room alone.
DELETE FROM results WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(size) OVER (ORDER BY used_at DESC, id DESC) AS filled FROM results
    ) WHERE filled > ?
) RETURNING id;

-- name: stats_of_results
-- How many, how large, how large in this file, how often they were of use.
SELECT count(*), coalesce(sum(size), 0), coalesce(sum(CASE WHEN data IS NULL THEN 0 ELSE size END), 0),
       coalesce(sum(hits), 0)
FROM results;
