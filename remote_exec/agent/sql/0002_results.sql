-- Results that calls with cache=True have left: a cache, so that anything here may be removed at any time.
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE CHECK (key <> ''),
    function TEXT NOT NULL,
    created_at REAL NOT NULL,
    used_at REAL NOT NULL,
    hits INTEGER NOT NULL DEFAULT 0 CHECK (hits >= 0),
    size INTEGER NOT NULL CHECK (size >= 0),
    -- the pickled value: inline when small, else a blob's digest; a blob that has been pruned is a miss
    data BLOB,
    digest TEXT,
    CHECK ((data IS NULL) <> (digest IS NULL))
);

-- The least recently used goes first.
CREATE INDEX results_by_use ON results (used_at);
