"""Batches to hidden states and losses: the transformer, its attention, vocabulary rows, spreading over devices.

No optimisation, no files.
"""
