"""Benchmarks: one file per performance claim. Each prints ratios against a floor measured in the same run."""
