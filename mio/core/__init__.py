"""The framework itself. It names no modality: all about one comes from plugins, through `contract/`."""
