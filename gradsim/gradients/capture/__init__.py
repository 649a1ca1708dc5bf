"""One forward and backward pass of a batch: the model's state, its inputs, and each sample's gradient terms."""
