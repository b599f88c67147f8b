"""The public test kit: fakes and in-memory twins that behave like the real parts."""
