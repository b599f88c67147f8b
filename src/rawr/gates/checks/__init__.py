"""The checks, one file per gate."""
