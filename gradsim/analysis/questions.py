"""Questions about a setting: the inputs, the function and the answer columns of each analysis table.

An analysis table has the name of its question. Each question added here becomes an asset and a stored table, and can be
asked in notebooks.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import polars as pl

from gradsim.analysis.audit import GRADIENT_AUDIT
from gradsim.analysis.comparisons import LAYER_DIFFERENCES, METHOD_DIFFERENCES, layer_differences, method_differences
from gradsim.analysis.controls import CONTROLS, answer_lengths, controls
from gradsim.analysis.divergence import (
    DIVERGENCE,
    MOST_DIVERGENT,
    SIMILARITY_OVER_LAYERS,
    divergence,
    similarity_over_layers,
)
from gradsim.analysis.layer_dots import LayerDots
from gradsim.analysis.layer_means import ATTENTION_AGAINST_MLP, LAYER_MEANS, attention_against_mlp, layer_means
from gradsim.analysis.layers import PARAMETERS_PER_LAYER, SIMILARITY_TO_FULL_GRADIENT, similarity_to_full_gradient
from gradsim.analysis.metrics import RETRIEVAL, retrieval_metrics
from gradsim.analysis.projections import PROJECTION_AUDIT, projection_audit, projection_errors
from gradsim.analysis.question import AnswerFunction, Question, Tables
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
from gradsim.analysis.selection import (
    GREEDY,
    HELD_OUT_SELECTION,
    SELECT_OR_PROJECT,
    SELECTION_TRANSFER,
    SELECTION_UNDER_BUDGET,
    Criterion,
    greedy_selection,
    held_out_selection,
    select_or_project,
    selection_under_budget,
)
from gradsim.environment import extensions

DOTS = ("dot_products", "query_self", "original_self")
SIZES = "parameters_per_layer"
PAIRS = ("candidates", "gradient_similarity", "projected_similarity")
TOKENS = ("original_tokens", "query_tokens")


def _dots(tables: Tables) -> LayerDots:
    return LayerDots.from_tables(*(tables[name] for name in DOTS))


def _controls(tables: Tables, seed: int) -> pl.DataFrame:
    """Compute the null controls; imported results have no tokens, so their answer lengths are left out."""
    lengths = [answer_lengths(tables[name]) for name in TOKENS if name in tables]
    return controls(tables["gradient_similarity"], *lengths, seed=seed)


def _projection_audit(tables: Tables, seed: int) -> pl.DataFrame:
    errors = projection_errors(_dots(tables), tables["projected_similarity"], tables["projections"], seed=seed)
    return projection_audit(errors, seed=seed)


def _most_divergent(tables: Tables, _: int) -> pl.DataFrame:
    return similarity_over_layers(_dots(tables), tables["divergence"]["query_id"].head(MOST_DIVERGENT).to_list())


def _budgets(tables: Tables, seed: int) -> pl.DataFrame:
    dimensions = tables["projected_similarity"]["dimension"].unique().to_list()
    return selection_under_budget(_dots(tables), tables[SIZES], dimensions, seed=seed)


def _greedy(criterion: Criterion) -> AnswerFunction:
    return lambda tables, seed: greedy_selection(_dots(tables), tables[SIZES], criterion, seed=seed)


def _of_pairs(function: Callable[..., pl.DataFrame]) -> AnswerFunction:
    return lambda tables, seed: function(
        tables["gradient_similarity"], tables["candidates"], tables["projected_similarity"], seed=seed
    )


QUESTIONS: Mapping[str, Question] = MappingProxyType(
    {
        "accuracy": Question(
            "How often the true source is the most similar candidate, for the full gradient, projections and BM25.",
            ACCURACY,
            PAIRS,
            lambda tables, _: accuracy(
                tables["gradient_similarity"], tables["candidates"], tables["projected_similarity"]
            ),
            draws=False,
        ),
        "method_differences": Question(
            "Accuracy differences between the full gradient, projections and BM25, with significance tests.",
            METHOD_DIFFERENCES,
            PAIRS,
            _of_pairs(method_differences),
        ),
        "retrieval": Question(
            "How high each method ranks the true source: recall at k and mean reciprocal rank.",
            RETRIEVAL,
            PAIRS,
            _of_pairs(retrieval_metrics),
        ),
        "controls": Question(
            "Null controls: the accuracy to expect without information from gradients.",
            CONTROLS,
            ("gradient_similarity", *TOKENS),
            _controls,
        ),
        "decisions": Question(
            "The candidate that the full gradient chooses for each query.",
            DECISIONS,
            ("candidates", "gradient_similarity"),
            lambda tables, _: decisions(tables["gradient_similarity"], tables["candidates"]),
            draws=False,
        ),
        "best_similarity": Question(
            "Similarity of the best candidate and of the true source.",
            BEST_SIMILARITY,
            ("gradient_similarity", "projected_similarity"),
            lambda tables, seed: best_similarity(
                tables["gradient_similarity"], tables["projected_similarity"], seed=seed
            ),
        ),
        "accuracy_per_layer": Question(
            "How often the gradient of a single layer finds the true source.",
            ACCURACY_PER_LAYER,
            (*DOTS, SIZES),
            lambda tables, _: accuracy_per_layer(_dots(tables)),
            draws=False,
        ),
        "layer_differences": Question(
            "Accuracy differences between pairs of layers, with significance tests.",
            LAYER_DIFFERENCES,
            (*DOTS, "accuracy_per_layer"),
            lambda tables, _: layer_differences(_dots(tables)),
            draws=False,
        ),
        "similarity_to_full_gradient": Question(
            "How closely the similarities of a single layer follow those of the full gradient.",
            SIMILARITY_TO_FULL_GRADIENT,
            (*DOTS, SIZES),
            lambda tables, seed: similarity_to_full_gradient(_dots(tables), seed=seed),
        ),
        "layer_means": Question(
            "Mean accuracy and similarity to the full gradient by component, part and block.",
            LAYER_MEANS,
            (*DOTS, SIZES),
            lambda tables, seed: layer_means(_dots(tables), tables[SIZES], seed=seed),
        ),
        "attention_against_mlp": Question(
            "Differences between attention and MLP layers in the whole model and in each block.",
            ATTENTION_AGAINST_MLP,
            (*DOTS, SIZES, "layer_means"),
            lambda tables, seed: attention_against_mlp(_dots(tables), tables[SIZES], seed=seed),
        ),
        "divergence": Question(
            "Queries that the best layer and the full gradient score differently.",
            DIVERGENCE,
            DOTS,
            lambda tables, _: divergence(_dots(tables)),
            draws=False,
        ),
        "similarity_over_layers": Question(
            "Similarities of the most divergent queries to their candidates in every layer.",
            SIMILARITY_OVER_LAYERS,
            (*DOTS, "divergence"),
            _most_divergent,
            draws=False,
        ),
        "greedy_by_accuracy": Question(
            "Order in which greedy forward selection by accuracy chooses layers.",
            GREEDY,
            (*DOTS, SIZES),
            _greedy(Criterion.ACCURACY),
        ),
        "greedy_by_similarity": Question(
            "Order in which greedy forward selection by similarity to the full gradient chooses layers.",
            GREEDY,
            (*DOTS, SIZES),
            _greedy(Criterion.SIMILARITY),
        ),
        "selection_under_budget": Question(
            "Greedy selections of layers within parameter budgets.",
            SELECTION_UNDER_BUDGET,
            (*DOTS, SIZES, "projected_similarity"),
            _budgets,
        ),
        "select_or_project": Question(
            "Selected layers compared with projections of the same dimension, on held-out queries.",
            SELECT_OR_PROJECT,
            (*DOTS, SIZES, "projected_similarity"),
            lambda tables, seed: select_or_project(
                _dots(tables), tables[SIZES], tables["projected_similarity"], seed=seed
            ),
        ),
        "held_out_selection": Question(
            "Value of layer selections on held-out queries.",
            HELD_OUT_SELECTION,
            (*DOTS, SIZES, "greedy_by_accuracy", "greedy_by_similarity", "accuracy", "select_or_project"),
            lambda tables, seed: held_out_selection(_dots(tables), tables[SIZES], seed=seed),
        ),
        "projection_audit": Question(
            "Errors of projected similarities compared with theory.",
            PROJECTION_AUDIT,
            (*DOTS, "projected_similarity", "projections"),
            _projection_audit,
        ),
        **{name: extension.load() for name, extension in extensions("analyses").items()},
    }
)

SCHEMAS: Mapping[str, Schema] = {
    **{name: question.schema for name, question in QUESTIONS.items()},
    "gradient_audit": GRADIENT_AUDIT,
    SIZES: PARAMETERS_PER_LAYER,
    "selection_transfer": SELECTION_TRANSFER,
}
