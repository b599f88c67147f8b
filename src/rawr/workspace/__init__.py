"""The workspace of an instance: where it is, how it is configured, which plugins lie in it. Imports no plugin."""
