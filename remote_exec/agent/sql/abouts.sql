-- Every statement about what is told of calls: a name, a comment, the SQL.

-- name: put_about
-- It is there from now on.
INSERT INTO abouts (digest, about) VALUES (:digest, :about) ON CONFLICT (digest) DO NOTHING;

-- name: tell
-- A call's row has it: the last word counts, which knows what came of the call.
INSERT INTO told (job_id, about_id)
SELECT jobs.id, abouts.id FROM jobs, abouts WHERE jobs.name = :name AND abouts.digest = :digest
ON CONFLICT (job_id) DO UPDATE SET about_id = excluded.about_id;

-- name: about
-- What is told of a call.
SELECT about FROM abouts WHERE id = (
    SELECT about_id FROM told WHERE job_id = (SELECT id FROM jobs WHERE name = ?)
);

-- name: newest_tagged
-- The newest call of those whose names begin so, and that have a tag: tags are JSON, in which its text is found.
SELECT name FROM jobs
WHERE name >= :low AND name < :high AND kind = 'call' AND instr(tags, :tag)
ORDER BY created_at DESC, name DESC LIMIT 1;

-- name: prune_abouts
-- Those of which no call is left.
DELETE FROM abouts WHERE NOT EXISTS (SELECT 1 FROM told WHERE about_id = abouts.id) RETURNING id;
