"""Using a run: prompts, answers under the span grammar, evaluation. Changes no weights."""
