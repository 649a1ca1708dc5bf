"""What may be asked for, and how many dimensions each layer gets."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import GradientError
from gradsim.gradients import Projector
from gradsim.gradients.projection import make_projections, published_dimension
from gradsim.gradients.projection.dimensions import dimensions_of_total

CPU = torch.device("cpu")


def projector(**changes):
    return Projector(**{"kind": "sjlt", "dimensions": 0.1, "seed": 42, "name": "p", **changes})


@pytest.mark.parametrize(("share", "total"), [(0.01, 11_778_048), (0.05, 58_841_600)])
def test_published_sizes(golden, share, total):
    elements = json.loads((golden / "published/analysis/parameters_per_layer.json").read_text())
    dimensions = projector(dimensions=share).layer_dimensions({layer: (n,) for layer, n in elements.items()})
    assert sum(dimensions.values()) == total


@given(st.floats(0.001, 1), st.integers(1, 10**9))
def test_published_dimension_is_a_positive_multiple_of_512(share, elements):
    dimension = published_dimension(share, elements)
    assert dimension >= 512
    assert dimension % 512 == 0
    assert abs(dimension - share * elements) <= 256 or dimension == 512


def test_layers_not_larger_than_their_dimension_are_whole(kind):
    dimensions = projector(kind=kind, dimensions=0.5).layer_dimensions(
        {"small": (100,), "equal": (512,), "large": (4096,)}
    )
    assert dimensions == {"small": 100, "equal": 512, "large": 2048}


def test_two_sides_make_a_little_less_than_asked_for():
    dimensions = projector(kind="logra", dimensions={"w": 510, "v": 100}).layer_dimensions({"w": (64, 64), "v": (200,)})
    assert dimensions == {"w": 22 * 23, "v": 100}


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=20), st.data())
def test_a_total_is_spread_in_proportion(sizes, data):
    elements = {str(place): n for place, n in enumerate(sizes)}
    total = data.draw(st.integers(len(sizes), sum(sizes)))
    dimensions = dimensions_of_total(total, elements)
    assert sum(dimensions.values()) == total
    spare, room = total - len(sizes), sum(sizes) - len(sizes)
    for layer, n in elements.items():
        assert 1 <= dimensions[layer] <= n
        assert abs((dimensions[layer] - 1) * room - spare * (n - 1)) <= room


def test_a_total_gives_the_last_ones_to_the_largest_fractions():
    assert dimensions_of_total(10, {"a": 11, "b": 11, "c": 31}) == {"a": 3, "b": 2, "c": 5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "dense"},
            "projector 'p' has the unknown kind 'dense': choose one of rademacher, sjlt, srht, logra, mask, traker",
        ),
        ({"dimensions": 0.0}, "projector 'p' has a share of 0.0: set a number above 0 and at most 1"),
        ({"dimensions": 1.5}, "projector 'p' has a share of 1.5: set a number above 0 and at most 1"),
        ({"dimensions": float("nan")}, "projector 'p' has a share of nan: set a number above 0 and at most 1"),
        ({"dimensions": 0}, "projector 'p' has 0 dimensions in total: set at least one per layer"),
        ({"dimensions": {"a": 0}}, "projector 'p' assigns 0 dimensions to layer a: set at least 1"),
        (
            {"nonzeros": 0},
            "projector 'p' of kind sjlt has 0 non-zeros per column: set 1, or more for sjlt",
        ),
        (
            {"kind": "srht", "nonzeros": 2},
            "projector 'p' of kind srht has 2 non-zeros per column: set 1, or more for sjlt",
        ),
    ],
)
def test_bad_projectors(changes, message):
    with pytest.raises(GradientError) as error:
        projector(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimensions": {"a": 1}}, "projector 'p' assigns no dimension to layer b: list every layer"),
        (
            {"dimensions": {"a": 1, "b": 1, "c": 1}},
            "projector 'p' lists layer c, which the model does not have: remove it",
        ),
        (
            {"dimensions": {"a": 1, "b": 1001}},
            "projector 'p' assigns 1,001 dimensions to layer b, which has 1,000 elements: set at most that number",
        ),
        (
            {"dimensions": 1},
            "projector 'p' has an invalid total: 1 dimensions cannot be distributed over 2 layers with 1,005 "
            "parameters: choose a total from 2 to 1,005",
        ),
        (
            {"dimensions": 1006},
            "projector 'p' has an invalid total: 1,006 dimensions cannot be distributed over 2 layers with 1,005 "
            "parameters: choose a total from 2 to 1,005",
        ),
    ],
)
def test_dimensions_that_do_not_fit_the_model(changes, message):
    with pytest.raises(GradientError) as error:
        projector(**changes).layer_dimensions({"a": (5,), "b": (10, 100)})
    assert str(error.value) == message


def test_a_column_has_no_more_nonzeros_than_its_layer_has_dimensions():
    few = projector(dimensions={"a": 3}, nonzeros=4)
    assert few.sketch("a", (50,), 3).nonzeros == 3
    assert few.sketch("a", (50,), 30).nonzeros == 4


def test_names_must_differ():
    with pytest.raises(GradientError) as error:
        make_projections([projector(), projector(seed=1)], {"a": (3,)}, CPU)
    assert str(error.value) == "two projectors are named 'p': give each its own name"
