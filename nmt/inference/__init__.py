"""Inference: search, the model bundle, and the Translator that the command line, evaluation and the service share."""
