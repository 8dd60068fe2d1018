-- The journal as it began. Never edit a migration that was released: add the next number.

-- One row for each job, and for each attached call or array that has ended.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE CHECK (name <> ''),
    kind TEXT NOT NULL CHECK (kind IN ('job', 'call', 'array')),
    function TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    cause TEXT NOT NULL,
    summary TEXT NOT NULL,
    instance_type TEXT NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    count INTEGER NOT NULL CHECK (count >= 0),
    failed INTEGER NOT NULL CHECK (failed BETWEEN 0 AND count),
    tags TEXT NOT NULL,
    -- an end time exists exactly in final states
    CHECK ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
);

-- Lists, newest first: all of them, and by kind and state.
CREATE INDEX jobs_by_time ON jobs (created_at, name);
CREATE INDEX jobs_by_kind_and_state ON jobs (kind, state, created_at, name);
-- Recovery after the agent's death; stays as small as the work at hand.
CREATE INDEX jobs_unfinished ON jobs (created_at, name) WHERE ended_at IS NULL;
-- Retention, oldest end first.
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;

-- How many jobs stand in each state: counting a hundred thousand rows takes milliseconds. Triggers keep it,
-- but for insertions: those come in thousands, and `count_inserted` adds them up after each batch.
CREATE TABLE counts (
    state TEXT PRIMARY KEY,
    rows INTEGER NOT NULL CHECK (rows >= 0)
) WITHOUT ROWID;
INSERT INTO counts VALUES ('queued', 0), ('running', 0), ('succeeded', 0), ('failed', 0), ('cancelled', 0);
CREATE TRIGGER count_deleted AFTER DELETE ON jobs BEGIN
    UPDATE counts SET rows = rows - 1 WHERE state = old.state;
END;
CREATE TRIGGER count_moved AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
    UPDATE counts SET rows = rows - 1 WHERE state = old.state;
    UPDATE counts SET rows = rows + 1 WHERE state = new.state;
END;

-- What a job asks for, as the client said it.
CREATE TABLE specs (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    spec TEXT NOT NULL
);

-- The bytes of arguments and results, in order: inline when small, else a blob's digest.
CREATE TABLE parts (
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('payload', 'outcome')),
    position INTEGER NOT NULL CHECK (position >= 0),
    data BLOB,
    digest TEXT,
    CHECK ((data IS NULL) <> (digest IS NULL)),
    UNIQUE (job_id, role, position)
);
CREATE INDEX parts_by_digest ON parts (digest) WHERE digest IS NOT NULL;

-- The one outcome of a job: the primary key is what makes it one.
CREATE TABLE outcomes (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('ok', 'failed')),
    failure TEXT,
    CHECK (kind = 'failed' OR failure IS NULL)
);

CREATE TABLE attempts (
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    cause TEXT NOT NULL,
    worker_pid INTEGER NOT NULL,
    started_at REAL,
    ended_at REAL,
    certificate TEXT,
    phases TEXT NOT NULL,
    PRIMARY KEY (job_id, number),
    CHECK ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
);

-- Fork servers that outlive an agent, for the next agent to adopt.
CREATE TABLE fork_servers (
    id TEXT PRIMARY KEY,
    pid INTEGER NOT NULL CHECK (pid > 0),
    socket TEXT NOT NULL,
    pool_key TEXT NOT NULL,
    started_at REAL NOT NULL
);
