"""Conformance gates: behaviour checks of an instance as it is composed now. They drive it; they never grep."""
