"""Durable execution: the functions themselves, their Inngest serve handler, and the embedded engine."""
