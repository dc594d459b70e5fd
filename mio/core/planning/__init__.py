"""What a recipe would take on hardware that is not here: memory, traffic, time and cost of a step."""
