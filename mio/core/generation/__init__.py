"""Using a trained model: prompts, answers under the span grammar, scores. Never changes weights."""
