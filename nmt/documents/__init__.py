"""Markup and files: what of them is text, and the same markup and files with its translation. Reads and writes; translates nothing."""
