"""Corpora: a recipe names public data; preparing it leaves cleaned token ids on disk, memory-mapped, with a manifest."""
