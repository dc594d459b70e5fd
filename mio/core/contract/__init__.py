"""What plugins and core agree on: hooks, values, their validation, and calling plugins. No torch, no recipes."""
