"""What plugins and core agree on: hooks, values, options, their validation, calling plugins. No torch, no recipes."""
