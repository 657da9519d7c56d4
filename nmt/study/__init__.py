"""Grids of training runs: when depth pays, what each ingredient gives, how gradients flow; reports with plots."""
