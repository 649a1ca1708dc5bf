"""Gradients that stay in memory while they are compared."""
