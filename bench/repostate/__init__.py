"""The parts of `bench.state`: who writes, how a crowd of them is measured, and what is made of the numbers."""
