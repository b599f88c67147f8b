"""The embedded engine: durable events, runs, steps and timers in one SQLite file, driving signed calls."""
