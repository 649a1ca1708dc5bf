"""The cheapest order of passes and comparisons within a memory budget, and what it costs."""
