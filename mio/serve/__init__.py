"""A trained model behind HTTP, by OpenAI's API. Knows modalities by their names and media types alone; needs the extra
`serve`, and nothing but `mio serve` imports it."""
