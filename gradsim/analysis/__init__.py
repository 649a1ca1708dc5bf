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
| `evaluation`, `layer_evaluation` | per-query statistics of similarities, for values and bootstrap intervals |
| `statistics` | confidence intervals and significance tests |

Columns of ids or layers are documented as `String` and keep the dtype of the input (an Enum stays an Enum).
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
