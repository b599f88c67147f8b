"""rawr: a local-first AI headquarters. The version is a constant so that nothing is imported to read it."""

__version__ = "0.1.0"
