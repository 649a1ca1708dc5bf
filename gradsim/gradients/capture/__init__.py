"""Forward and backward pass of a batch: model state, inputs, and each sample's gradient terms."""
