"""Samples as they come in: reading datasets, the bundled chat template's checkout, and token estimates."""
