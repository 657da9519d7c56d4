"""Batch translation at any size: files of many kinds in, the same kind out, resumable, on one machine or many."""
