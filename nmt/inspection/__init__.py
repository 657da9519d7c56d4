"""What a trained model does with one sentence, and what its layers know: attention, activations, linear probes."""
