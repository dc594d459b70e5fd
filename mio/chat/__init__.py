"""The browser page to talk to a trained model. Knows modalities by their names and media types alone."""
