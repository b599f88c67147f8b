"""The folder that an instance is: its identity, its files, what is running in it, and what is wrong with it."""
