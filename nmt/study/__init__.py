"""Studies of trained models: when depth pays, what layers learned, how gradients flow; reports with plots."""
