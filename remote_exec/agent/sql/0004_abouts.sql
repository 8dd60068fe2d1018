-- What whoever looks at a call is told, beside its row: the code that ran, its environment, what came of it, as JSON.
-- Calls of one function share it.
CREATE TABLE abouts (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL
);
CREATE TABLE told (
    job_id INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    about_id INTEGER NOT NULL REFERENCES abouts (id)
);
CREATE INDEX told_by_about ON told (about_id);
