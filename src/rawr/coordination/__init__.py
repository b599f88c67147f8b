"""The coordination domain: workflows of desks, their runs, and what must hold for both."""
