"""An export of mio in vLLM: its span grammar as a logits processor, and a front end for media."""
