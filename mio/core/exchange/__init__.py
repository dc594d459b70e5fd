"""Models in and out in the Hugging Face layout: `writing.export_run` and `reading.import_folder`.

Both pass tensors one by one: memory holds one of them, whatever the size of the model.
"""
