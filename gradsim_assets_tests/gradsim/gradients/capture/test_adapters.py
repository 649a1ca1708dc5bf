"""Models that PEFT has put adapters into."""

import numpy as np
import pytest
import torch

from gradsim.gradients import compare


@pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")
@pytest.mark.parametrize("settings", [{"modules_to_save": ["lm_head"]}, {}])
def test_lora_on_the_embedding(settings, make_model, make_samples, oracle):
    """The embedding is then a module around the table, whose own parameters no forward of a module uses."""
    peft = pytest.importorskip("peft")
    configuration = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "embed_tokens"], init_lora_weights=False, **settings
    )
    model = peft.get_peft_model(make_model("llama, untied", torch.float32), configuration).double().eval()
    queries, originals = make_samples(2, seed=1), make_samples(2, seed=2)
    expected = oracle(model, queries, originals)

    result = compare(model, queries, originals, "all", precision="float64")

    assert result.layers == [name for name, _ in model.named_parameters()]
    assert any("lora_embedding_A" in name for name in result.layers)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale + 1e-28).all()
