"""Samples past a model's positions, whatever its family calls them: right numbers, or one line before work starts."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from gradsim.errors import GradientError
from gradsim.gradients import Projector, compare, compare_tiles
from gradsim.gradients.capture.length import CheckedLookups
from gradsim.gradients.vectors import projected_gradients

POSITIONS = 16
GPT2_LIKE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
BERT_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
DECODER_LIKE = {
    "d_model": 32,
    "decoder_ffn_dim": 48,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
LEARNED = "the model has only {} learned positions"
RUNS = "the model accepts at most {} "

LIMITED = {
    "gpt_neo": (
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": POSITIONS,
        },
        16,
        LEARNED,
    ),
    "openai-gpt": (GPT2_LIKE, 16, LEARNED),
    "biogpt": (BERT_LIKE, 16, LEARNED),  # two rows more, its offset
    "bart": (DECODER_LIKE, 16, LEARNED),  # the same
    "roberta": ({**BERT_LIKE, "is_decoder": True}, 14, LEARNED),  # begins behind the padding's row
    "gptj": ({**GPT2_LIKE, "rotary_dim": 4}, 16, RUNS),  # a buffer
    "codegen": ({**GPT2_LIKE, "rotary_dim": 4}, 16, RUNS),
    "ctrl": ({**GPT2_LIKE, "dff": 48}, 16, RUNS),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": POSITIONS}, 16, RUNS),  # ALiBi, of that length
}
UNLIMITED = {
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": POSITIONS},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}


def build(family, settings):
    config = AutoConfig.for_model(family, vocab_size=64, pad_token_id=1, bos_token_id=0, eos_token_id=2, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture
def samples(make_sample):
    """The longest last."""

    def of_lengths(*lengths):
        return [make_sample(f"of {n}", tokens := [3 + i % 50 for i in range(n)], tokens) for n in lengths]

    return of_lengths


@pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")
@pytest.mark.parametrize("family", LIMITED)
def test_positions_that_end(family, samples, oracle):
    settings, limit, reason = LIMITED[family]
    model = build(family, settings).double()
    short, longest, long, longer = samples(9, limit, limit + 1, 2 * limit + 5)

    result = compare(model, [short], [longest], "all", precision="float64")

    expected = oracle(model, [short], [longest])
    assert (np.abs(result.dots - expected.dots[0]) <= 1e-10 * expected.scale[0] + 1e-28).all()
    for bad, originals in ((long, [longest, long]), (long, [long, longer]), (longer, [longer])):
        with pytest.raises(GradientError) as error:
            compare(model, [short], originals, "all", precision="float64")
        beginning = f"sample {bad.id!r} has {len(bad.input_ids)} tokens, but {reason.format(limit)}"
        assert str(error.value).startswith(beginning)
        assert str(error.value).endswith(": shorten or exclude it")
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")
@pytest.mark.parametrize("family", UNLIMITED)
def test_positions_that_do_not_end(family, samples, oracle):
    model = build(family, UNLIMITED[family])  # XGLM itself knows no float64
    short, long = samples(9, 2 * POSITIONS + 5)
    result = compare(model, [short], [long], "all")
    expected = oracle(model, [short], [long])
    assert (np.abs(result.dots - expected.dots[0]) <= 1e-5 * expected.scale[0] + 1e-14).all()


def test_projected_gradients_ask_as_well(samples):
    settings, limit, reason = LIMITED["gptj"]
    vectors = projected_gradients(build("gptj", settings), samples(limit + 1), Projector("sjlt", 0.3, 42, "p"))
    with pytest.raises(GradientError, match=reason.format(limit)):
        next(vectors)


def test_asking_leaves_no_trace(samples):
    """Rotary frequencies are set anew for an input past the context."""
    settings = {**BERT_LIKE, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}}
    model = build("llama", settings).train()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(model.training))
    rotary = model.model.rotary_emb
    before = dict(vars(rotary)), rotary.inv_freq, rotary.inv_freq.clone()

    both = samples(9, 3 * POSITIONS)
    compare_tiles(model, both, both, "all")  # no tile is taken

    assert seen == [False]
    assert (vars(rotary), rotary.inv_freq) == before[:2]
    assert torch.equal(rotary.inv_freq, before[2])
    assert model.training


def test_a_model_that_fails_anyhow_says_so_itself(samples):
    model = build("bloom", UNLIMITED["bloom"])
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("not today")))
    both = samples(9, 12)
    with pytest.raises(GradientError, match=r"does not run sample 'of 9' .* \(ValueError: not today\)"):
        compare(model, both, both, "all")


def test_labels_past_a_smaller_head(make_sample):
    model = build("llama", BERT_LIKE)
    model.resize_token_embeddings(70)
    model.lm_head = torch.nn.Linear(32, 64, bias=False)
    read, predicted = make_sample("read", [5, 66, 7], [5, -100, 7]), make_sample("predicted", [5, 66, 7], [5, 66, 7])
    assert np.isfinite(compare(model, [read], [read], "all").dots).all()
    with pytest.raises(GradientError) as error:
        compare(model, [read], [predicted], "all")
    assert str(error.value) == (
        "sample 'predicted' has labels outside the 64 outputs of the model's head, first 66: "
        "tokenize it with the model's own tokenizer"
    )


@pytest.mark.parametrize(
    "look_up",
    [
        lambda table, rows: torch.nn.functional.embedding(rows, table),
        lambda table, rows: table[rows],
        lambda table, rows: table[:, rows],
        lambda table, rows: table.index_select(0, rows),
        lambda table, rows: table.gather(1, rows[None]),
    ],
)
def test_lookups_are_checked_before_they_run(look_up):
    table = torch.arange(16.0).reshape(4, 4)
    rows = torch.tensor([0, 3])
    with CheckedLookups():
        found = look_up(table, rows)
        with pytest.raises(IndexError, match="index 4 is out of bounds for a table of 4"):
            look_up(table, rows + 1)
    assert torch.equal(found, look_up(table, rows))


def test_masks_and_empty_lookups_are_no_indices():
    table = torch.arange(16.0).reshape(4, 4)
    with CheckedLookups():
        assert torch.equal(table[table > 13], torch.tensor([14.0, 15.0]))
        assert table[torch.tensor([], dtype=torch.long)].shape == (0, 4)
