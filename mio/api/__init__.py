"""What Python programs use a trained model by: typed parts in, answers out that show themselves. Knows modalities by
their names and media types alone."""
