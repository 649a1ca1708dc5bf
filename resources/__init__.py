"""What the assets are given: a device for the model, a place to compute, an API to ask."""
