"""The command line: one static table of commands, one envelope, one file per command. Parse, call, render."""
