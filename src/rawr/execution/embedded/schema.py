"""The tables of `engine.sqlite`. Only this engine reads them.

`queue` holds one row per thing that is to happen: a call, or the end of a sleep. Job ids are derived from the
run and the step, so that planning the same thing twice is one row. `waits` are steps that something else ends, and
`timers` what happens at a time if nothing else does. A run that has ended has rows in none of the three. `offers`
are the functions that each engine serves, and `offered_code` the code that it has. A run that has begun is pinned to
`runs.code`, and held (`held_at`) while nobody has that. `taken_over` has a row once the host has given the engine the
unfinished runs that an earlier file knew. All times are Unix milliseconds. JSON is kept as text, its RFC 8785 form
beside it only where that is another text.
"""

from __future__ import annotations

from typing import Final

from rawr.storage.sqlite import Migration

MIGRATIONS: Final = (
    Migration(
        name="events, runs, steps and the queue",
        sql="""
CREATE TABLE apps (
  app_id TEXT PRIMARY KEY, checksum TEXT NOT NULL, synced_at INTEGER NOT NULL
) STRICT;

CREATE TABLE functions (
  fn_id TEXT PRIMARY KEY, app_id TEXT NOT NULL REFERENCES apps (app_id), name TEXT NOT NULL,
  max_attempts INTEGER NOT NULL, archived INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE triggers (
  event_name TEXT NOT NULL, fn_id TEXT NOT NULL REFERENCES functions (fn_id), of_function TEXT
) STRICT;
CREATE INDEX triggers_by_event ON triggers (event_name);

CREATE TABLE owners (
  slot INTEGER PRIMARY KEY, owner TEXT NOT NULL
) STRICT;

CREATE TABLE events (
  ulid TEXT PRIMARY KEY, event_id TEXT NOT NULL, name TEXT NOT NULL, of_function TEXT,
  body TEXT NOT NULL, body_canonical TEXT, received_at INTEGER NOT NULL, routed INTEGER NOT NULL
) STRICT;
CREATE INDEX events_unrouted ON events (ulid) WHERE routed = 0;

CREATE TABLE event_keys (
  fn_id TEXT NOT NULL, event_id TEXT NOT NULL, run_id TEXT NOT NULL, seen_at INTEGER NOT NULL,
  PRIMARY KEY (fn_id, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, fn_id TEXT NOT NULL, event_ulid TEXT NOT NULL REFERENCES events (ulid),
  status TEXT NOT NULL, plan_steps INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
  state_bytes INTEGER NOT NULL DEFAULT 0, queued_at INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER,
  output TEXT, error TEXT
) STRICT;

CREATE TABLE steps (
  run_id TEXT NOT NULL REFERENCES runs (run_id), step_id TEXT NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL,
  memo TEXT NOT NULL, memo_canonical TEXT, attempt INTEGER NOT NULL, ended_at INTEGER NOT NULL,
  PRIMARY KEY (run_id, step_id)
) STRICT;
CREATE UNIQUE INDEX steps_in_order ON steps (run_id, seq);

CREATE TABLE pending (
  run_id TEXT NOT NULL REFERENCES runs (run_id), step_id TEXT NOT NULL, race INTEGER NOT NULL,
  PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE queue (
  job_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs (run_id), fn_id TEXT NOT NULL, kind TEXT NOT NULL,
  step_id TEXT NOT NULL, name TEXT NOT NULL, due_at INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
  generation INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
  lease_owner TEXT, lease_until INTEGER
) STRICT;
CREATE INDEX queue_by_run ON queue (run_id);
CREATE INDEX queue_due ON queue (kind, due_at) WHERE lease_owner IS NULL;
CREATE INDEX queue_leased ON queue (lease_owner, lease_until) WHERE lease_owner IS NOT NULL;
""",
    ),
    Migration(
        name="waits, timers and cancellations",
        sql="""
ALTER TABLE events ADD COLUMN starts_at INTEGER;
ALTER TABLE runs ADD COLUMN parent_wait TEXT;
ALTER TABLE triggers ADD COLUMN condition TEXT;
ALTER TABLE functions ADD COLUMN config TEXT NOT NULL DEFAULT '';
UPDATE functions SET config = json_object(
  'fn_id', fn_id, 'name', name, 'max_attempts', max_attempts, 'triggers', json_array());

CREATE TABLE waits (
  wait_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs (run_id), step_id TEXT NOT NULL,
  name TEXT NOT NULL, event_name TEXT, condition TEXT
) STRICT;
CREATE INDEX waits_by_event ON waits (event_name) WHERE event_name IS NOT NULL;
CREATE INDEX waits_by_run ON waits (run_id);

CREATE TABLE cancels (
  run_id TEXT NOT NULL REFERENCES runs (run_id), event_name TEXT NOT NULL, condition TEXT, until INTEGER
) STRICT;
CREATE INDEX cancels_by_event ON cancels (event_name);
CREATE INDEX cancels_by_run ON cancels (run_id);

CREATE TABLE timers (
  timer_id TEXT PRIMARY KEY, kind TEXT NOT NULL, run_id TEXT, due_at INTEGER NOT NULL
) STRICT;
CREATE INDEX timers_due ON timers (due_at);
CREATE INDEX timers_by_run ON timers (run_id);

CREATE INDEX runs_open ON runs (fn_id, run_id) WHERE ended_at IS NULL;
""",
    ),
    Migration(
        name="limits",
        sql="""
ALTER TABLE runs ADD COLUMN key1 TEXT;
ALTER TABLE runs ADD COLUMN key2 TEXT;
ALTER TABLE runs ADD COLUMN finish_timeout INTEGER;
ALTER TABLE queue ADD COLUMN key1 TEXT;
ALTER TABLE queue ADD COLUMN key2 TEXT;
ALTER TABLE queue ADD COLUMN throttle TEXT;
ALTER TABLE queue ADD COLUMN parked_on TEXT;
ALTER TABLE queue ADD COLUMN called_by TEXT;
DROP INDEX queue_due;
CREATE INDEX queue_due ON queue (kind, due_at) WHERE lease_owner IS NULL AND parked_on IS NULL;
CREATE INDEX queue_parked ON queue (parked_on, due_at) WHERE parked_on IS NOT NULL;
CREATE INDEX queue_under_key1 ON queue (key1) WHERE lease_owner IS NOT NULL AND key1 IS NOT NULL;
CREATE INDEX queue_under_key2 ON queue (key2) WHERE lease_owner IS NOT NULL AND key2 IS NOT NULL;

CREATE TABLE rate_starts (
  key TEXT NOT NULL, started_at INTEGER NOT NULL
) STRICT;
CREATE INDEX rate_starts_by_key ON rate_starts (key, started_at);
""",
    ),
    Migration(
        name="crons, and times that a clock was wrong about",
        sql="""
ALTER TABLE queue ADD COLUMN added_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE timers ADD COLUMN set_at INTEGER NOT NULL DEFAULT 0;

CREATE TABLE crons (
  cron_id TEXT PRIMARY KEY, fn_id TEXT NOT NULL REFERENCES functions (fn_id), expression TEXT NOT NULL,
  jitter INTEGER NOT NULL, tick_at INTEGER NOT NULL
) STRICT;
""",
    ),
    Migration(
        name="debounced, batched, throttled and single runs",
        sql="""
ALTER TABLE runs ADD COLUMN singleton TEXT;
ALTER TABLE runs ADD COLUMN is_batch INTEGER NOT NULL DEFAULT 0;

CREATE TABLE run_events (
  run_id TEXT NOT NULL REFERENCES runs (run_id), seq INTEGER NOT NULL,
  event_ulid TEXT NOT NULL REFERENCES events (ulid), PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE singletons (
  key TEXT PRIMARY KEY, run_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE throttles (
  key TEXT PRIMARY KEY, full_at INTEGER NOT NULL, interval INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE debounces (
  key TEXT PRIMARY KEY, fn_id TEXT NOT NULL, event_ulid TEXT NOT NULL REFERENCES events (ulid),
  first_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE batches (
  key TEXT PRIMARY KEY, fn_id TEXT NOT NULL, events INTEGER NOT NULL, size_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE batch_events (
  key TEXT NOT NULL, seq INTEGER NOT NULL, event_ulid TEXT NOT NULL REFERENCES events (ulid),
  PRIMARY KEY (key, seq)
) STRICT, WITHOUT ROWID;
""",
    ),
    Migration(
        name="versions of functions",
        sql="""
ALTER TABLE functions ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE queue ADD COLUMN version TEXT NOT NULL DEFAULT '';

CREATE TABLE offers (
  owner TEXT NOT NULL, fn_id TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (owner, fn_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX offers_by_version ON offers (version);
""",
    ),
    Migration(
        name="runs again, and what is forgotten",
        sql="""
ALTER TABLE runs ADD COLUMN rerun_of TEXT;
ALTER TABLE rate_starts ADD COLUMN until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_by_event ON runs (event_ulid);
CREATE INDEX run_events_by_event ON run_events (event_ulid);
CREATE INDEX debounces_by_event ON debounces (event_ulid);
CREATE INDEX batch_events_by_event ON batch_events (event_ulid);
""",
    ),
    Migration(
        name="waits and cancellations by the value they look for",
        sql="""
ALTER TABLE waits ADD COLUMN match_path TEXT;
ALTER TABLE waits ADD COLUMN match_key TEXT;
ALTER TABLE cancels ADD COLUMN match_path TEXT;
ALTER TABLE cancels ADD COLUMN match_key TEXT;
DROP INDEX waits_by_event;
DROP INDEX cancels_by_event;
CREATE INDEX waits_by_event ON waits (event_name, match_path, match_key) WHERE event_name IS NOT NULL;
CREATE INDEX cancels_by_event ON cancels (event_name, match_path, match_key);
""",
    ),
    Migration(
        name="what people look for",
        sql="""
CREATE INDEX events_by_id ON events (event_id);
CREATE INDEX events_by_name ON events (name, ulid);
CREATE INDEX runs_by_function ON runs (fn_id, run_id);
CREATE INDEX runs_unwell ON runs (run_id) WHERE status IN ('failed', 'cancelled');
""",
    ),
    Migration(
        name="the code that runs are pinned to, and what they asked for",
        sql="""
ALTER TABLE runs ADD COLUMN code TEXT;
ALTER TABLE runs ADD COLUMN held_at INTEGER;
ALTER TABLE runs ADD COLUMN held_reason TEXT;
ALTER TABLE queue ADD COLUMN code TEXT;
ALTER TABLE steps ADD COLUMN op TEXT;
CREATE INDEX runs_held ON runs (fn_id, code) WHERE held_at IS NOT NULL;

CREATE TABLE offered_code (
  owner TEXT NOT NULL, token TEXT NOT NULL, PRIMARY KEY (owner, token)
) STRICT, WITHOUT ROWID;

CREATE TABLE accepted_code (
  run_id TEXT NOT NULL REFERENCES runs (run_id), accepted_at INTEGER NOT NULL, accepted_by TEXT NOT NULL,
  before TEXT NOT NULL, after TEXT NOT NULL
) STRICT;
CREATE INDEX accepted_code_by_run ON accepted_code (run_id);

CREATE TABLE unfinished (
  run_id TEXT NOT NULL REFERENCES runs (run_id), step_id TEXT NOT NULL, name TEXT NOT NULL, op TEXT NOT NULL,
  PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;
""",
    ),
    Migration(
        name="where apps are, and what steps were asked for",
        sql="""
ALTER TABLE apps ADD COLUMN url TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN request_version INTEGER NOT NULL DEFAULT -1;
ALTER TABLE queue ADD COLUMN last_error TEXT;

CREATE TABLE step_inputs (
  run_id TEXT NOT NULL REFERENCES runs (run_id), step_id TEXT NOT NULL, op TEXT NOT NULL, input TEXT NOT NULL,
  PRIMARY KEY (run_id, step_id)
) STRICT, WITHOUT ROWID;
""",
    ),
    Migration(
        name="whether it was given what another file had left",
        sql="""
CREATE TABLE taken_over (at INTEGER NOT NULL) STRICT;
INSERT INTO taken_over SELECT received_at FROM events LIMIT 1;
""",
    ),
)
