"""What is particular to a kind: its structure, against plain matrices."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import GradientError
from gradsim.gradients.projection import KINDS, ModelProjection, Projector, rademacher
from gradsim.gradients.projection.kind import LayerSketch
from gradsim.gradients.projection.logra import Logra, Sides
from gradsim.gradients.projection.sjlt import Sjlt, signed_buckets
from gradsim.gradients.projection.srht import hadamard, hadamard_matrix
from gradsim.gradients.rules.terms import Dense, ExpertOuter, Outer, RowSum, Term, TokenRows

CPU = torch.device("cpu")


def columns_of(at_work):
    """R as a matrix, (n, k)."""
    shape = at_work.sketch.shape
    return at_work.project([row.view(shape) for row in torch.eye(at_work.sketch.elements, dtype=torch.float64)])


@pytest.mark.parametrize("nonzeros", [1, 2, 3])
def test_sjlt_has_so_many_nonzeros_in_every_column_one_a_block(projection, nonzeros):
    columns = columns_of(projection("sjlt", (40,), 8, nonzeros=nonzeros)) * nonzeros**0.5
    assert set(columns.unique().tolist()) == {-1.0, 0.0, 1.0}
    sizes = [8 // nonzeros + (block < 8 % nonzeros) for block in range(nonzeros)]
    for block in columns.split(sizes, dim=1):
        assert (block.count_nonzero(dim=1) == 1).all()


def test_sjlt_spreads_coordinates_evenly():
    slots = signed_buckets(LayerSketch((200_000,), 10, key=3), 0, 10, CPU)
    counts = np.bincount(slots.numpy(), minlength=20)
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)


def test_sjlt_adds_many_up_accurately():
    sketch = LayerSketch((300_000,), 2, key=1)
    values = torch.rand(300_000, generator=torch.Generator().manual_seed(0))
    slots = signed_buckets(sketch, 0, 2, CPU)
    exact = torch.zeros(4, dtype=torch.float64).index_add_(0, slots, values.double())
    projected = Sjlt(sketch, CPU).project([values])[0]
    torch.testing.assert_close(projected.double(), exact[:2] - exact[2:], rtol=2e-7, atol=0)


@pytest.mark.parametrize("size", [1, 2, 64, 128, 256, 2048])
def test_hadamard_is_the_textbooks(size):
    expected = torch.from_numpy(scipy.linalg.hadamard(size)).double()
    assert torch.equal(hadamard_matrix(size, torch.float64, CPU), expected)
    values = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard(values), expected @ values)


def test_srht_of_all_rows_is_a_rotation(projection):
    gradient = torch.rand(64, dtype=torch.float64)
    projected = projection("srht", (64,), 64).project([gradient])[0]
    torch.testing.assert_close(projected.norm(), gradient.norm())


def test_rademacher_does_not_depend_on_how_many_signs_stand_at_once(projection, monkeypatch):
    """A GPU makes more of them than a processor."""
    gradient = torch.rand(9000, dtype=torch.float64)
    expected = projection("rademacher", (9000,), 100).project([gradient])
    monkeypatch.setitem(rademacher._SIGNS, "cpu", 1 << 24)
    torch.testing.assert_close(projection("rademacher", (9000,), 100).project([gradient]), expected)


def test_mask_takes_coordinates(projection):
    columns = columns_of(projection("mask", (40,), 8))
    assert (columns.count_nonzero(dim=0) == 1).all()
    assert (columns.count_nonzero(dim=1) <= 1).all()
    assert columns.max() == pytest.approx((40 / 8) ** 0.5)


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 1))
def test_logra_sides_make_the_most_of_a_dimension(rows, columns, share):
    wanted = max(1, int(share * rows * columns))
    sides = Sides.of((rows, columns), wanted)
    a, b = sides.a, sides.b
    assert 1 <= a <= rows
    assert 1 <= b <= columns
    assert a * b <= wanted
    assert Sides.of((rows, columns), a * b) == sides
    # Neither side could be one larger.
    assert a == rows or b == columns or min((a + 1) * b, a * (b + 1)) > wanted


def test_logra_is_a_kronecker_product(projection):
    """Each of the k columns is an outer product of signs."""
    columns = columns_of(projection("logra", (12, 9), 30))
    for column in columns.T:
        assert torch.linalg.matrix_rank(column.view(12, 9)) == 1
        torch.testing.assert_close(column.abs(), torch.full_like(column, 30**-0.5))


def test_logra_keeps_a_small_side_whole(projection):
    at_work = projection("logra", (200, 2), 300)
    assert at_work.sketch.dimension == 300
    assert (columns_of(at_work).count_nonzero(dim=0) == 200).all()


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


TOKENS = torch.tensor([0, 3, 4, 11])
TERMS: dict[str, tuple[tuple[int, ...], int, Term | RowSum]] = {
    "outer": ((12, 9), 30, Outer(random(5, 12), random(5, 9))),
    "outer, whole columns": ((200, 2), 300, Outer(random(5, 200), random(5, 2))),
    "outer, whole rows": ((2, 200), 300, Outer(random(5, 2), random(5, 200))),
    "rows of an embedding": ((12, 9), 30, TokenRows(TOKENS, random(4, 9), 12)),
    "rows of an embedding, whole": ((2, 200), 300, TokenRows(TOKENS[:1], random(1, 200), 2)),
    "no rows": ((12, 9), 30, TokenRows(TOKENS[:0], random(0, 9), 12)),
    "dense": ((12, 9), 30, Dense(random(12, 9))),
    "sum of rows": ((50,), 10, RowSum(random(5, 50))),
    "experts": ((3, 6, 5), 24, ExpertOuter((2, 0, 3), torch.tensor([0, 1, 1, 2, 0]), random(5, 6), random(3, 5), True)),
    "experts, transposed": (
        (3, 5, 6),
        24,
        ExpertOuter((2, 0, 3), torch.tensor([0, 1, 1, 2, 0]), random(5, 6), random(3, 5), False),
    ),
    "no experts": ((3, 6, 5), 24, ExpertOuter((0, 0, 0), TOKENS[:0], random(0, 6), random(3, 5), True)),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_projected_as_its_gradient_is(projection, kind, name):
    shape, dimension, term = TERMS[name]
    at_work = projection(kind, shape, dimension)
    expected = at_work.project([term.gradient()])[0]
    torch.testing.assert_close(at_work.project_term(term), expected, rtol=1e-10, atol=1e-12)


def test_logra_builds_no_gradient(projection, monkeypatch):
    for kind in (Outer, TokenRows, ExpertOuter):
        monkeypatch.setattr(kind, "gradient", lambda _: pytest.fail("a gradient was built"))
    for name in ("outer", "rows of an embedding", "experts"):
        shape, dimension, term = TERMS[name]
        projection("logra", shape, dimension).project_term(term)


def test_logra_says_what_terms_and_gradients_cost():
    """Of T rows: T (R a + C b + a b) products; of the gradient, the cheaper order."""
    sketch = LayerSketch((100, 50), 20 * 20, key=0)
    assert Logra.term_effort(sketch, 7).operations == 2 * 7 * (100 * 20 + 50 * 20 + 20 * 20)
    assert Logra.effort(sketch).operations == 2 * min(20 * 100 * 50 + 20 * 50 * 20, 100 * 50 * 20 + 20 * 100 * 20)


def test_a_row_of_a_stack_is_projected_by_its_own_part_of_the_left_side():
    of_one, of_stack = (Logra.term_effort(LayerSketch(shape, 400, key=0), 1) for shape in ((100, 50), (8, 100, 50)))
    assert of_stack == of_one


def test_traker_draws_the_signs_of_its_own_projector():
    from trak.projectors import BasicProjector, ProjectionType

    sketch = LayerSketch((30, 20), 150, key=(5 << 40) + 3)
    gradient = torch.rand(30, 20)
    theirs = BasicProjector(600, 150, sketch.key % (1 << 31), ProjectionType.rademacher, CPU)
    expected = theirs.project(gradient.view(1, -1), model_id=0)[0] / 150**0.5
    torch.testing.assert_close(KINDS["traker"](sketch, CPU).project([gradient])[0], expected)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "cuda:0",
            "kind traker needs the package fast_jl on cuda:0: install it (pip install 'traker[fast]'), or choose "
            "rademacher, which needs no extra package",
        ),
        ("mps", "kind traker does not run on mps: choose rademacher"),
    ],
)
def test_a_kind_that_a_device_lacks(device, message):
    with pytest.raises(GradientError) as error:
        ModelProjection(Projector("traker", 2, 42, "p"), {"w": (30,)}, torch.device(device))
    assert str(error.value) == f"projector 'p': {message}"
