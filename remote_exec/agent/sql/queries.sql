-- Every statement of the journal: a name, a comment, the SQL.

-- name: insert_job
-- A new row, or none where the name is taken.
INSERT INTO jobs (name, kind, function, state, created_at, started_at, ended_at, cause, summary,
                  instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: record_call
-- An ended call; one that became a job under the same name keeps its row. An array grows.
INSERT INTO jobs (name, kind, function, state, created_at, started_at, ended_at, cause, summary,
                  instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET count = count + excluded.count, failed = failed + excluded.failed, ended_at = max(ended_at, excluded.ended_at),
    held_seconds = held_seconds + excluded.held_seconds
WHERE kind = 'array' AND excluded.kind = 'array' AND ended_at IS NOT NULL;

-- name: record_failure
-- Why a call failed that has just been recorded.
INSERT INTO outcomes (job_id, kind, failure)
SELECT id, 'failed', :failure FROM jobs WHERE name = :name AND id > :last_id AND state <> 'succeeded';

-- name: record_attempt
-- How an ended call came to run.
INSERT INTO attempts (job_id, number, state, cause, worker_pid, started_at, ended_at, certificate, phases)
SELECT id, :number, :state, :cause, :worker_pid, :started_at, :ended_at, :certificate, :phases
FROM jobs WHERE name = :job
ON CONFLICT DO NOTHING;

-- name: last_id
-- Ids grow, and there is one writer: whatever it inserts next lies above.
SELECT coalesce(max(id), 0) FROM jobs;

-- name: count_inserted
-- Brings the counts up to date with the rows above an id.
UPDATE counts
SET rows = rows + (SELECT count(*) FROM jobs WHERE jobs.id > :last_id AND jobs.state = counts.state);

-- name: insert_spec
-- What the job asks for.
INSERT INTO specs (job_id, spec) VALUES (?, ?);

-- name: insert_part
-- One piece of the arguments or of the outcome.
INSERT INTO parts (job_id, role, position, data, digest) VALUES (?, ?, ?, ?, ?);

-- name: transition
-- The job's next state, if it still stands where the caller believes: a late one changes nothing.
UPDATE jobs
SET state = :state,
    started_at = coalesce(:started_at, started_at),
    summary = coalesce(:summary, summary),
    attempts = coalesce(:attempts, attempts)
WHERE name = :name AND state = :expected AND ended_at IS NULL
RETURNING id;

-- name: finish
-- The job's end, once: a second outcome finds no row. Whatever worker it holds yet, it holds no longer.
UPDATE jobs
SET state = :state, ended_at = :ended_at, cause = :cause, summary = :summary, failed = coalesce(:failed, failed),
    held_seconds = held_seconds + max(0.0, coalesce(:ended_at - held_since, 0.0)), held_since = NULL
WHERE name = :name AND ended_at IS NULL
RETURNING id;

-- name: ended_without_outcome
-- A call that has ended, and whose caller was to have what it came to; then it turned out that nobody has.
SELECT id FROM jobs
WHERE name = :name AND kind = 'call' AND state = :state
  AND NOT EXISTS (SELECT 1 FROM outcomes WHERE job_id = jobs.id);

-- name: insert_outcome
-- The outcome that belongs to `finish`.
INSERT INTO outcomes (job_id, kind, failure) VALUES (?, ?, ?);

-- name: start_attempt
-- One more try at a job that has not ended; a number that was used starts nothing.
INSERT INTO attempts (job_id, number, state, cause, worker_pid, started_at, ended_at, certificate, phases)
SELECT id, :number, :state, :cause, :worker_pid, :started_at, :ended_at, :certificate, :phases
FROM jobs WHERE name = :job AND ended_at IS NULL
ON CONFLICT DO NOTHING
RETURNING job_id;

-- name: withdraw_attempt
-- It never began: its agent died before.
DELETE FROM attempts
WHERE job_id = (SELECT id FROM jobs WHERE name = ?) AND number = ? AND ended_at IS NULL;

-- name: count_attempt
-- The job knows how many tries it has had, and where it has a price, since when it holds a worker.
UPDATE jobs
SET attempts = :number, held_since = CASE WHEN cost_per_hour IS NULL THEN NULL ELSE :started_at END
WHERE id = :id;

-- name: end_attempt
-- The attempt's end, once. Phases that were told when it began stay where none are told now.
UPDATE attempts
SET state = :state, cause = :cause, ended_at = :ended_at, certificate = :certificate,
    phases = CASE :phases WHEN '[]' THEN phases ELSE :phases END,
    worker_pid = max(worker_pid, :worker_pid), started_at = coalesce(started_at, :started_at)
WHERE job_id = (SELECT id FROM jobs WHERE name = :job) AND number = :number AND ended_at IS NULL
RETURNING job_id;

-- name: let_go
-- The attempt's worker is not held any longer.
UPDATE jobs
SET held_seconds = held_seconds + max(0.0, :ended_at - held_since), held_since = NULL
WHERE id = :id AND held_since IS NOT NULL;

-- name: job
-- One job by name.
SELECT name, kind, function, state, created_at, started_at, ended_at, cause, summary,
       instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since
FROM jobs WHERE name = ?;

-- name: unfinished
-- All jobs that have not ended, oldest first.
SELECT name, kind, function, state, created_at, started_at, ended_at, cause, summary,
       instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since
FROM jobs INDEXED BY jobs_unfinished WHERE ended_at IS NULL ORDER BY created_at, name;

-- name: page
-- A page of everything, newest first; the unary plus keeps the planner on the time index.
SELECT name, kind, function, state, created_at, started_at, ended_at, cause, summary,
       instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since
FROM jobs
WHERE (created_at, name) < (:time, :before) AND +name >= :low AND +name < :high
ORDER BY created_at DESC, name DESC LIMIT :limit;

-- name: page_of_kind_and_state
-- The same within one kind and state; pages of several are merged by the caller.
SELECT name, kind, function, state, created_at, started_at, ended_at, cause, summary,
       instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since
FROM jobs
WHERE kind = :kind AND state = :state
  AND (created_at, name) < (:time, :before) AND +name >= :low AND +name < :high
ORDER BY created_at DESC, name DESC LIMIT :limit;

-- name: by_prefix
-- For prefixes that few names share: fetch them all, sort in memory.
SELECT name, kind, function, state, created_at, started_at, ended_at, cause, summary,
       instance_type, attempts, count, failed, tags, cost_per_hour, currency, held_seconds, held_since
FROM jobs
WHERE name >= :low AND name < :high LIMIT :limit;

-- name: count_by_state
-- How many rows stand in each state, as the triggers keep it.
SELECT state, rows FROM counts;

-- name: spec
-- What a job asked for.
SELECT spec FROM specs WHERE job_id = (SELECT id FROM jobs WHERE name = ?);

-- name: parts
-- The bytes of one role, in order.
SELECT data, digest FROM parts
WHERE job_id = (SELECT id FROM jobs WHERE name = ?) AND role = ? ORDER BY position;

-- name: outcome
-- How a job ended.
SELECT kind, failure FROM outcomes WHERE job_id = (SELECT id FROM jobs WHERE name = ?);

-- name: attempts
-- All tries at one job, in order.
SELECT number, state, cause, worker_pid, started_at, ended_at, certificate, phases
FROM attempts WHERE job_id = (SELECT id FROM jobs WHERE name = ?) ORDER BY number;

-- name: referenced_blobs
-- The roots for the cache's garbage collection.
SELECT DISTINCT digest FROM parts WHERE digest IS NOT NULL;

-- name: oldest_ended
-- Candidates for removal, oldest end first.
SELECT id, name, ended_at FROM jobs WHERE ended_at IS NOT NULL ORDER BY ended_at, id LIMIT ?;

-- name: count_ended
-- How many rows retention may count.
SELECT coalesce(sum(rows), 0) FROM counts WHERE state IN ('succeeded', 'failed', 'cancelled');

-- name: digests_of_job
-- The blobs that one job refers to.
SELECT DISTINCT digest FROM parts WHERE job_id = ? AND digest IS NOT NULL;

-- name: blob_is_referenced
-- Whether any job still needs this blob.
SELECT 1 FROM parts WHERE digest = ? LIMIT 1;

-- name: delete_job
-- A job with all that hangs on it.
DELETE FROM jobs WHERE id = ?;

-- name: used_bytes
-- What the live pages hold; free pages are reused, so the file does not grow past its high-water mark.
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size;

-- name: add_fork_server
-- Known from now on to the next agent.
INSERT INTO fork_servers (id, pid, socket, pool_key, started_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, socket = excluded.socket,
    pool_key = excluded.pool_key, started_at = excluded.started_at;

-- name: remove_fork_server
-- Gone.
DELETE FROM fork_servers WHERE id = ? RETURNING id;

-- name: fork_servers
-- All that may still live, oldest first.
SELECT id, pid, socket, pool_key, started_at FROM fork_servers ORDER BY started_at, id;
