"""Measuring what has been learnt: held-out records, answers, verdicts, figures, comparisons."""
