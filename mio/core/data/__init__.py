"""Sources to batches: reading, shards, shuffling, mixture, packing, loading. Exact and resumable; knows no model."""
