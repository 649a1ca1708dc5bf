"""From stored dots to the study's answers: polars frames in, polars frames out.

Nothing here loads a model, and nothing imports Dagster, torch or transformers.

| table, made by | from | answers |
| --- | --- | --- |
| `gradient_similarity` | the three tables of dots | how alike are the gradients of a pair |
| `accuracy` | similarity, candidates, projected | how often is the source the most similar |
| `controls` | similarity, answer lengths | what is found without looking at gradients |
| `best_similarity` | similarity, projected | how similar are best candidate and source |
| `decisions` | similarity, candidates | which candidate does each query choose |
| `accuracy_per_layer` | layer dots | how often by one layer's gradient alone |
| `similarity_to_full_gradient` | layer dots | which layer sees pairs as the whole does |
| `projection_audit` | layer dots, projected | do projections err as theory says |
| `gradient_audit` | dots by plain autograd, stored ones | are the stored dots right |
| `parameters_per_layer` | the model's layers | which part of the model is how large |

Every table is made by the function of its name. `LayerDots.from_tables` is the one place where the
long tables of dots become arrays and are checked. `SCHEMAS` documents every column; one of ids or
layers is listed as `String` and keeps the dtype of the input (Enum stays Enum).
"""

from gradsim.analysis.audit import GRADIENT_AUDIT, Verdict, audit_verdict, audited_pairs, gradient_audit
from gradsim.analysis.controls import CONTROLS, answer_lengths, controls
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layers import (
    PARAMETERS_PER_LAYER,
    SIMILARITY_TO_FULL_GRADIENT,
    block_of,
    component_of,
    parameters_per_layer,
    similarity_to_full_gradient,
)
from gradsim.analysis.projections import PROJECTION_AUDIT, projection_audit, projection_errors
from gradsim.analysis.retrieval import (
    ACCURACY,
    ACCURACY_PER_LAYER,
    BEST_SIMILARITY,
    DECISIONS,
    accuracy,
    accuracy_per_layer,
    best_similarity,
    decisions,
)
from gradsim.analysis.schema import Schema
from gradsim.analysis.similarity import GRADIENT_SIMILARITY, gradient_similarity
from gradsim.analysis.statistics import wilson_interval

SCHEMAS: dict[str, Schema] = {
    "gradient_similarity": GRADIENT_SIMILARITY,
    "accuracy": ACCURACY,
    "controls": CONTROLS,
    "accuracy_per_layer": ACCURACY_PER_LAYER,
    "best_similarity": BEST_SIMILARITY,
    "decisions": DECISIONS,
    "similarity_to_full_gradient": SIMILARITY_TO_FULL_GRADIENT,
    "parameters_per_layer": PARAMETERS_PER_LAYER,
    "gradient_audit": GRADIENT_AUDIT,
    "projection_audit": PROJECTION_AUDIT,
}

__all__ = [
    "SCHEMAS",
    "LayerDots",
    "Verdict",
    "accuracy",
    "accuracy_per_layer",
    "answer_lengths",
    "audit_verdict",
    "audited_pairs",
    "best_similarity",
    "block_of",
    "component_of",
    "controls",
    "decisions",
    "gradient_audit",
    "gradient_similarity",
    "parameters_per_layer",
    "projection_audit",
    "projection_errors",
    "similarity_to_full_gradient",
    "wilson_interval",
]
