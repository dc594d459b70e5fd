"""Checkpoints of training: each rank writes what it holds, in the background; readable on any number of ranks."""
