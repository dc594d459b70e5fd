"""Using a trained model: prompts, answers under the span grammar, evaluation. Never changes weights."""
