"""Analyses of stored dot products: polars frames in, polars frames out.

This package loads no model and does not import Dagster, torch or transformers. `QUESTIONS` lists the analysis tables of
a setting, with the inputs, the columns and the function that computes each one.

| module | contents |
| --- | --- |
| `layer_dots`, `candidate_lists` | dot product tables as validated arrays, and the rule that scores a query |
| `similarity` | similarity of the gradients of each pair |
| `retrieval`, `metrics` | how often each method finds the true source, and how high it ranks it |
| `controls` | accuracy to expect without information from gradients |
| `comparisons` | paired comparisons of methods and of layers, with significance tests |
| `layers`, `layer_means` | component, size and similarity of each layer; means by component, part and block |
| `divergence` | queries that the best layer and the full gradient score differently |
| `selection` | layer selection: held-out evaluation, parameter budgets, projections, transfer |
| `projections` | errors of projected similarities compared with theory |
| `audit` | check of the stored dot products against plain autograd |
| `evaluation` | per-query statistics of similarities, for values and bootstrap intervals |
| `statistics` | confidence intervals and significance tests |

Columns of ids or layers are documented as `String` and keep the dtype of the input (an Enum stays an Enum). All frames
of a study have the same one.

Arguments that a function does not describe mean the same everywhere. A frame is the table of its name, with rows in any
order; `similarity` and `projected` are the tables `gradient_similarity` and `projected_similarity`. Forced sources are
unknown without `candidates`, or if its column `forced` is null. Sizes in `parameters_per_layer` may be null.
`layer_dots` contains the dot products of all queries, and `seed` is the seed of the bootstrap and of all other draws.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
