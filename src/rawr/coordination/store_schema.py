"""The tables of the coordination store. Steps that a released rawr has taken never change; new ones come last."""

from __future__ import annotations

from typing import Final

from rawr.storage.sqlite import Migration

MIGRATIONS: Final = (
    Migration(
        name="workflows, runs, timelines and memory",
        sql="""
CREATE TABLE workflow (
  workflow_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY (workflow_id, version)
) STRICT;

CREATE TABLE run (
  number INTEGER PRIMARY KEY,  -- in the order of creation
  run_id TEXT NOT NULL UNIQUE,
  workflow_id TEXT NOT NULL,
  workflow_version INTEGER NOT NULL,
  status TEXT NOT NULL,
  last_seq INTEGER NOT NULL,
  dispatched INTEGER NOT NULL DEFAULT 0,
  started_at TEXT NOT NULL,
  finished_at TEXT,
  output TEXT,
  error TEXT,
  trace_links TEXT NOT NULL
) STRICT;
CREATE INDEX run_of_workflow ON run (workflow_id);
CREATE INDEX run_of_version ON run (workflow_id, workflow_version);
CREATE INDEX run_by_status ON run (status);
CREATE INDEX run_undispatched ON run (number) WHERE dispatched = 0 AND status = 'queued';

-- Apart from the run, whose row is written anew with each event.
CREATE TABLE run_input (
  run_number INTEGER PRIMARY KEY REFERENCES run (number),
  input TEXT NOT NULL
) STRICT;

CREATE TABLE event (
  run_number INTEGER NOT NULL REFERENCES run (number),
  seq INTEGER NOT NULL,
  event_id TEXT NOT NULL,
  type TEXT NOT NULL,
  desk_id TEXT,
  document TEXT NOT NULL,
  PRIMARY KEY (run_number, seq),
  UNIQUE (run_number, event_id)
) STRICT;
CREATE INDEX event_desk_completed ON event (run_number, desk_id, seq) WHERE type = 'desk.completed';

CREATE TABLE memory (
  workflow_id TEXT NOT NULL,
  workflow_version INTEGER NOT NULL,
  desk_id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  key TEXT NOT NULL,
  data TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  expires_at_ms INTEGER,
  PRIMARY KEY (workflow_id, workflow_version, desk_id, namespace, key)
) STRICT;
""",
    ),
    Migration(
        name="finished hooks",
        sql="""
-- Apart from the run, as its input is. Runs from before have no row, and no hook hears of them.
CREATE TABLE run_finalization (
  run_number INTEGER PRIMARY KEY REFERENCES run (number),
  contract TEXT NOT NULL,
  deliveries INTEGER NOT NULL DEFAULT 0,
  finished_hook TEXT
) STRICT;
CREATE INDEX run_never_taken ON run (number) WHERE dispatched = 0 AND status = 'failed';

CREATE TABLE finished_effect (
  run_number INTEGER NOT NULL REFERENCES run (number),
  key TEXT NOT NULL,
  result TEXT NOT NULL,
  PRIMARY KEY (run_number, key)
) STRICT, WITHOUT ROWID;
""",
    ),
    Migration(
        name="runs that repeat others",
        sql="""
-- Which run it repeats, what is kept of that, and what is given in place of what was.
CREATE TABLE run_fork (
  run_number INTEGER PRIMARY KEY REFERENCES run (number),
  fork TEXT NOT NULL
) STRICT;
""",
    ),
)
