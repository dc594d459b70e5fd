"""Learning: the LightningModule, optimisers, gradients, guards, metrics, and the loop of one stage."""
