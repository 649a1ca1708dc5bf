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

from gradsim.analysis.audit import GRADIENT_AUDIT, Verdict, audit_verdict, audited_pairs, gradient_audit
from gradsim.analysis.comparisons import layer_differences, method_differences
from gradsim.analysis.controls import answer_lengths, controls
from gradsim.analysis.divergence import divergence, similarity_over_layers
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layer_means import attention_against_mlp, layer_means
from gradsim.analysis.layers import (
    PARAMETERS_PER_LAYER,
    block_of,
    component_of,
    parameters_per_layer,
    similarity_to_full_gradient,
)
from gradsim.analysis.metrics import retrieval_metrics
from gradsim.analysis.noise import noise_layers
from gradsim.analysis.projections import projection_audit, projection_errors
from gradsim.analysis.questions import QUESTIONS, Question
from gradsim.analysis.retrieval import accuracy, accuracy_per_layer, best_similarity, decisions
from gradsim.analysis.schema import Schema
from gradsim.analysis.selection import (
    SELECTION_TRANSFER,
    Criterion,
    greedy_selection,
    held_out_selection,
    select_or_project,
    selection_transfer,
    selection_under_budget,
    value_of_selection,
)
from gradsim.analysis.similarity import gradient_similarity
from gradsim.analysis.statistics import wilson_interval

SCHEMAS: dict[str, Schema] = {
    **{name: question.schema for name, question in QUESTIONS.items()},
    "gradient_audit": GRADIENT_AUDIT,
    "parameters_per_layer": PARAMETERS_PER_LAYER,
    "selection_transfer": SELECTION_TRANSFER,
}

__all__ = [
    "GRADIENT_AUDIT",
    "PARAMETERS_PER_LAYER",
    "QUESTIONS",
    "SCHEMAS",
    "SELECTION_TRANSFER",
    "Criterion",
    "LayerDots",
    "Question",
    "Schema",
    "Verdict",
    "accuracy",
    "accuracy_per_layer",
    "answer_lengths",
    "attention_against_mlp",
    "audit_verdict",
    "audited_pairs",
    "best_similarity",
    "block_of",
    "component_of",
    "controls",
    "decisions",
    "divergence",
    "gradient_audit",
    "gradient_similarity",
    "greedy_selection",
    "held_out_selection",
    "layer_differences",
    "layer_means",
    "method_differences",
    "noise_layers",
    "parameters_per_layer",
    "projection_audit",
    "projection_errors",
    "retrieval_metrics",
    "select_or_project",
    "selection_transfer",
    "selection_under_budget",
    "similarity_over_layers",
    "similarity_to_full_gradient",
    "value_of_selection",
    "wilson_interval",
]
