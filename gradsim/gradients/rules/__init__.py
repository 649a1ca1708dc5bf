"""The mathematics of each layer type.

terms.py     what a gradient is made of: dense, outer products, rows of an embedding, stacks of outer products
dots.py      inner products of terms, an identity for each pair of kinds
linear.py  bias.py  norm.py  embedding.py  experts.py     from one call of a module and its output's gradient to terms
registry.py  which module follows which rule; everything else is left to autograd
"""
