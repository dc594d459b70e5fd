"""The processes of one run: their starting, agreeing and sharing out of tensors. Knows nothing of what they compute."""
