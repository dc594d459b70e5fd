"""Live conversations with a trained model: timed events in, timed events out. Never changes weights."""
