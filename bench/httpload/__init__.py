"""Parts of bench.http."""
