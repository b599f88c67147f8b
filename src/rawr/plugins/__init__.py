"""What is plugged into an instance: enabling web plugins, loading workflows plugins, and how to write one."""
