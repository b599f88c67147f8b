"""What a run must leave behind, and the check that it did."""
