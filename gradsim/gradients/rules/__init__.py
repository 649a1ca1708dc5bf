"""Gradient rules for each layer type.

terms.py     terms of a gradient: dense, outer products, embedding rows, stacks of outer products
dots.py      inner products of terms, with one identity per pair of term types
linear.py  bias.py  norm.py  embedding.py  experts.py     terms from a module's call and its output gradient
registry.py  choice of the rule for a module; modules without a rule are left to autograd
"""
