"""Gradients held in memory for their comparisons."""
