-- What a job costs: null where its instance type had no price.
ALTER TABLE jobs ADD COLUMN cost_per_hour REAL CHECK (cost_per_hour > 0);
ALTER TABLE jobs ADD COLUMN currency TEXT;
-- For how long workers were held, in attempts that have ended, or in all calls of an array.
ALTER TABLE jobs ADD COLUMN held_seconds REAL CHECK (held_seconds >= 0);
-- Since when the worker is held that it has now.
ALTER TABLE jobs ADD COLUMN held_since REAL;
