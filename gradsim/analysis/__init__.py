"""From stored dots to the study's answers: polars frames in, polars frames out.

Nothing here loads a model, and nothing imports Dagster, torch or transformers. `QUESTIONS` lists the tables of a
setting, with the function that makes each, what it reads and what its columns mean.

| module | answers |
| --- | --- |
| `layer_dots`, `candidate_lists` | the long tables of dots as arrays, checked, and the rule by which a query counts |
| `similarity` | how alike are the gradients of a pair |
| `retrieval`, `metrics` | how often, and how high in the list, is the source found |
| `controls` | what is found without looking at gradients |
| `comparisons` | which of two methods or layers finds more, and is that chance |
| `layers`, `layer_means` | what each layer is and sees; components, blocks, attention and MLP |
| `divergence` | which queries do the best layer and the full gradient see differently |
| `selection` | which layers suffice, on other queries, within a budget, beside projections, in another setting |
| `projections` | do projections err as theory says |
| `audit` | are the stored dots right |
| `evaluation`, `layer_evaluation` | what similarities are worth, query by query, so that they can be resampled |
| `statistics` | intervals and tests |

Columns of ids or layers are documented as `String` and keep the dtype of the input (Enum stays Enum).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
