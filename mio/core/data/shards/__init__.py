"""Token shards: records with their media as codes and their text as text, in files that are mapped into memory.

A shard holds a contiguous range of the records of one source. It knows nothing of vocabularies, templates or layouts,
so that one tokenised corpus serves every one of them. See docs/data.md for the format.
"""
