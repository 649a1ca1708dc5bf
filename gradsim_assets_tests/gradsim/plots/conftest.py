"""Every figure once."""

import pytest
from matplotlib.figure import Figure

from gradsim import analysis, plots
from gradsim.analysis import Criterion
from gradsim_assets_tests.gradsim.plots import frames


@pytest.fixture
def figures() -> dict[str, Figure]:
    pairs = frames.pairs()
    layers = frames.layer_names(2)
    many = frames.layer_names(10)
    sizes = frames.parameters(layers)
    selection = frames.greedy(layers, sizes=sizes)
    means = frames.layer_means(
        {
            "component": [("attention q", 0.5), ("MLP up", 0.7)],
            "part": [("attention", 0.5), ("MLP", 0.7)],
            "block": [("0", 0.5), ("1", 0.7)],
        }
    )
    contests = frames.contests([("sjlt", 40, str(criterion), 0.1, 0.05, 0.2) for criterion in Criterion])
    accuracies = frames.accuracy({"full_gradient": 0.6, "sjlt-40": 0.5, "bm25": 0.4})
    candidates = {"s1": [0.1] * len(layers), "s0": [0.2] * len(layers)}
    return {
        "accuracy": plots.accuracy_of_methods(
            {"paraphrased": analysis.accuracy(pairs)}, {"paraphrased": analysis.controls(pairs)}
        ),
        "few-layers": plots.accuracy_of_layers(frames.accuracy_per_layer(layers), sizes),
        "many-layers": plots.accuracy_of_layers(frames.accuracy_per_layer(many), frames.parameters(many)),
        "full": plots.layers_against_full_gradient(frames.similarity_to_full_gradient(layers), sizes),
        "similarity": plots.source_against_others(analysis.decisions(pairs)),
        "parameters": plots.parameters_of_components(sizes),
        "audit": plots.errors_of_audit(frames.audit(layers), "float32"),
        "projections": plots.errors_of_projections(frames.projection_audit({"sjlt": 0.9, "srht": 1.1})),
        "groups": plots.means_of_groups(means),
        "depth": plots.means_by_depth(means),
        "attention": plots.attention_and_mlp(
            means, frames.attention_against_mlp({None: (-0.2, -0.3, -0.1), 0: (-0.2, -0.3, 0.1)})
        ),
        "selection": plots.greedy_selection(selection, selection, frames.held_out(selection), accuracies, contests),
        "order": plots.selection_order(selection, sizes, Criterion.ACCURACY),
        "projected": plots.selected_or_projected(contests),
        "transfer": plots.transfer_of_selections(frames.transfer(["a", "b"], [0.5, 0.6], [0.4, 0.6])),
        "recall": plots.recall_at_k(frames.retrieval({"full_gradient": {1: 0.6, 2: 0.8}, "bm25": {1: 0.5, 2: 0.6}})),
        "over-layers": plots.similarity_over_layers(frames.over_layers(layers, candidates)),
        "differences": plots.differences_of_layers(
            frames.layer_differences(layers, 5), frames.accuracy_per_layer(layers)
        ),
    }
