"""The pages of the web console: what they show as values, and how that becomes HTML. Knows no HTTP."""
