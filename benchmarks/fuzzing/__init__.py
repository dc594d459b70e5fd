"""A fuzzer of what mio reads from people: recipes, overrides, command lines, run folders, records, prompts.

`harness.py` runs tries and counts; the other modules make them. Every try is a function of its seed.
"""
