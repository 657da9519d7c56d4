"""The model family: stacked recurrent networks, attention, encoder, decoder, and the Seq2Seq that joins them.

Dimensions, in every comment of this package:
B batch, S source steps, T target steps, E embedding, H hidden, L layers, V vocabulary, A attention heads, K beam.
Batch first, except the native states of PyTorch's recurrent kernels. Masks are bool, True = a real token.
"""
