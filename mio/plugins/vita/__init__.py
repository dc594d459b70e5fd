"""VITA as a system: control tokens, presets, recipes."""
