"""What a person writes: the language of recipes, from files to checked dataclasses. No torch; opens no data."""
