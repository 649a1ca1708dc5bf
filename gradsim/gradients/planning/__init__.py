"""Find the cheapest order of passes and comparisons within a memory budget, and predict its cost."""
