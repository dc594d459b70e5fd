"""Learning: the LightningModule, optimisers, gradients, guards, figures, and the loop of one stage."""
