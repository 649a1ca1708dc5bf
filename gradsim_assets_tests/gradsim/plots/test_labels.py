import pytest

from gradsim import plots
from gradsim.plots.labels import count, listed, percent, points, power_of_ten, size_of


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        ("model.layers.3.mlp.up_proj.weight", "3.mlp.up_proj"),
        ("transformer.h.11.attn.c_attn.bias", "11.attn.c_attn.bias"),
        ("model.layers.1.mlp.experts.down_proj", "1.mlp.experts.down_proj"),
        ("model.embed_tokens.weight", "embed_tokens"),
        ("model.decoder.final_layer_norm.bias", "final_layer_norm.bias"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_layer_labels(layer: str, label: str) -> None:
    assert plots.layer_label(layer) == label


def test_other_labels() -> None:
    assert plots.setting_label("model_generated") == "model-generated"
    assert plots.method_label("full_gradient") == "full gradient"
    assert plots.method_label("bm25") == "BM25"
    assert plots.method_label("sjlt-11778048") == "sjlt, 11.8\u00a0M dimensions"
    assert plots.control_label("bm25_rank") == "BM25 rank only"


def test_numbers() -> None:
    assert [count(number) for number in (988, 12_000, 1_176_764_416)] == ["988", "12\u00a0k", "1.18\u00a0B"]
    assert [power_of_ten(n) for n in (0, 2.14e-7, 1e-5, 0.3, 20.0)] == ["0", "2.1·10⁻⁷", "10⁻⁵", "3·10⁻¹", "2·10¹"]
    assert [power_of_ten(number) for number in (float("nan"), float("inf"))] == ["nan", "inf"]
    assert [power_of_ten(number) for number in (-2.14e-7, float("-inf"))] == ["−2.1·10⁻⁷", "−inf"]
    sizes = [size_of(share) for share in (0.003564, 0.25, 1, 3e-7)]
    assert sizes == ["0.36\u00a0%", "25\u00a0%", "100\u00a0%", "3·10⁻⁵\u00a0%"]
    assert percent(0.99291) == "99.3\u00a0%"
    assert [points(-2.87), points(2.87), points(0.0125, 3)] == ["−2.9", "+2.9", "+0.013"]
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
