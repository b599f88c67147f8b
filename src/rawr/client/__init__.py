"""Talking to a running HQ."""
