"""The image tokenizer of SEED (arXiv 2310.01218, github.com/AILab-CVC/SEED, version 2), which MIO and AnyGPT use.

An image of 224 x 224 pixels becomes 32 codes out of 8192: EVA-CLIP-g features, a causal Q-Former, one codebook. Back,
the codes become an image embedding that Stable Diffusion 2.1 unCLIP draws. `options.py` says where the weights are,
`model.py` and `qformer.py` are the networks, `weights.py` reads the checkpoints, `tokenizer.py` is what mio calls.
"""
