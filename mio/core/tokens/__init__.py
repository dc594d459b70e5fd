"""Records to token ids and back: templates, documents, layouts, the vocabulary. Knows no batches and no model."""
