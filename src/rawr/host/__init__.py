"""The HTTP edge of one instance: who may come in, which family they meet, and what the answer looks like."""
