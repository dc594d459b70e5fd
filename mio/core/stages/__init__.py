"""What the commands do: one module per verb, from a recipe to a result. Nothing below imports it."""
