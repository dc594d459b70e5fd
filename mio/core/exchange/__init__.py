"""Models in and out in the Hugging Face layout: `writing.export_run` and `reading.import_folder`.

Both pass tensors one by one: what is in memory is one tensor, whatever the size of the model.
"""
