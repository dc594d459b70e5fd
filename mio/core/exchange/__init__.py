"""Models in and out in the Hugging Face layout: `writing.export_run` and `reading.import_folder`.

Both pass tensors one by one: memory holds a few of the largest ones, and never the model.
"""
