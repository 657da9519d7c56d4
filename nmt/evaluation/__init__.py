"""Evaluation: scores that carry their signatures."""
