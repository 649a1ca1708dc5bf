"""Answers in company are those that transformers' `generate` gives to each prompt alone; what fails is found."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from gradsim.errors import ModelError
from gradsim.models.fresh_state import fresh_state
from gradsim.models.limits import length_boundaries
from gradsim.text_generation.local import GeneratedAnswer, generate_answers
from gradsim.text_generation.local.cache import RoomyLayer
from gradsim.text_generation.local.companies import independent_groups
from gradsim.text_generation.local.decoding import Decoder
from gradsim.text_generation.local.measuring import STEPS, probes_of, sections
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.schedule import decode
from gradsim_assets_tests.gradsim.text_generation.local.families import (
    AS_GOOD_AS_TIED,
    MORE_FAMILIES,
    ORIGINAL,
    Alone,
    as_good_as_tied,
    common_end,
    make_model,
    make_tokenizer,
    prompts_of,
)

pytestmark = pytest.mark.slow

NEW = 12
# Some stay below ORIGINAL, some cross it while they are decoded, and some begin past it.
LENGTHS = [3, 5, 9, 9, 14, 20, 20, 20, 23, 24, 25, 30, 30, 40]
FAST = [
    "grouped queries",
    "table of positions",
    "shifted table of positions",
    "biases for distances, no context",
    "experts",
    "windows",
    "some windows",
    "states, no context",
    "biases of projections",
    "windows in every second layer",
    "dynamic rope",
    "alibi",
    "shared experts",
    "experts of a token",
]
SLOW = {
    "longrope that reads again": "of 14 prompts, 6 share batches with prompts of equal length only and 0 are answered",
    "longrope that goes on": "of 14 prompts, 6 share batches with prompts of equal length only and 0 are answered",
    "states in modules": "of 14 prompts, 0 share batches with prompts of equal length only and 14 are answered",
    "heeds no mask, no context": "of 14 prompts, 0 share batches with prompts of equal length only and 14 are answered",
}


def answered(model: PreTrainedModel, prompts: Sequence[list[int]], end: int) -> tuple[list[GeneratedAnswer], list[str]]:
    """Answers, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers = generate_answers(model, make_tokenizer(end), prompts, max_new_tokens=NEW)
    return answers, [str(warning.message) for warning in caught]


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("family", [*FAST, *SLOW])
def test_in_company_as_by_transformers_alone(family: str) -> None:
    model, prompts = make_model(family), prompts_of(LENGTHS)
    alone = [Alone.by_transformers(model, prompt, NEW) for prompt in prompts]
    end = common_end(alone)
    answers, warned = answered(model, prompts, end)
    assert as_good_as_tied(answers, alone, end) == 0
    if family in FAST:
        assert warned == []
    else:
        [warning] = warned
        assert SLOW[family] in warning
        assert "\n" not in warning
    backwards, _ = answered(model, prompts[::-1], end)
    assert backwards[::-1] == answers


def test_threshold_that_no_answer_reaches_costs_nothing() -> None:
    model, prompts = make_model("longrope that reads again"), prompts_of([3, 5, 9, ORIGINAL - NEW + 1])
    alone = [Alone.by_transformers(model, prompt, NEW) for prompt in prompts]
    answers, warned = answered(model, prompts, end=0)
    assert as_good_as_tied(answers, alone, end=0) == 0
    assert warned == []


@pytest.mark.usefixtures("short_slices")
def test_dynamic_rope_past_its_context() -> None:
    """Its frequencies follow the longest sequence so far, and keys in the cache keep those that they were made with."""
    model = make_model("dynamic rope of a short context")
    model.generation_config = GenerationConfig()  # no token ends an answer
    prompts = prompts_of(LENGTHS)
    alone = [Alone.by_transformers(model, prompt, NEW) for prompt in prompts]
    rows = [Row(place, list(prompt), len(prompt), NEW) for place, prompt in enumerate(prompts)]
    handed: dict[int, list[int]] = {}
    with fresh_state(model) as state:
        decoder = Decoder(model, state, end=None)
        with pytest.warns(UserWarning, match="of 14 prompts, 10 share batches"):
            groups = independent_groups(model, state, rows, 16_384)
        for group in groups:
            decode(group, decoder.start, 16_384, lambda row: handed.update({row.position: row.new_ids}))
    assert min(min(each.margins) for each in alone) > AS_GOOD_AS_TIED
    assert [handed[place] for place in range(len(prompts))] == [each.ids for each in alone]


@pytest.mark.parametrize("family", ["longrope that reads again", "dynamic rope of a short context"])
def test_the_callers_model_is_left_as_it_was(family: str) -> None:
    model = make_model(family)

    def state() -> list[Any]:
        rotary: Any = model.model.rotary_emb
        buffers = [(name, id(buffer), buffer.tolist()) for name, buffer in model.named_buffers()]
        return [buffers, sorted(rotary.__dict__), rotary.max_seq_len_cached]

    prompts = prompts_of([3, 9, ORIGINAL - 3])
    new, (answers, _) = state(), answered(model, prompts, end=0)
    assert state() == new
    with torch.no_grad():
        model(torch.tensor(prompts_of([ORIGINAL + 15])))
    used = state()
    assert used != new
    assert answered(model, prompts, end=0)[0] == answers
    assert state() == used


def test_low_precision_tells_rounding_from_company() -> None:
    prompts = prompts_of(LENGTHS)
    assert answered(make_model("grouped queries", torch.bfloat16), prompts, end=0)[1] == []
    assert answered(make_model("experts", torch.bfloat16), prompts, end=0)[1] == []
    assert len(answered(make_model("longrope that reads again", torch.bfloat16), prompts, end=0)[1]) == 1


def test_model_without_a_causal_mask_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        generate_answers(make_model("no causal mask"), make_tokenizer(0), prompts_of([3, 9]), max_new_tokens=NEW)
    assert str(caught.value) == (
        "model bert: its tokens attend to later ones, so it cannot answer prompts; choose a causal model, or set "
        "is_decoder in its configuration"
    )


def test_state_that_cannot_be_put_back_is_refused() -> None:
    model = make_model("grouped queries")
    calls: list[int] = []

    def drift(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        drifted: torch.Tensor = output + 0.01 * len(calls) * output.roll(1, -1)
        return drifted

    model.get_output_embeddings().register_forward_hook(drift)
    with pytest.raises(
        ModelError, match=r"^model llama: it answers a prompt differently after another one, because of"
    ):
        generate_answers(model, make_tokenizer(0), prompts_of([3, 9]), max_new_tokens=NEW)


def test_model_that_no_way_serves_is_refused() -> None:
    model = make_model("grouped queries")

    def shift(module: torch.nn.Module, inputs: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Tells caches that were made elsewhere from those that `generate` makes itself."""
        cache = keywords["past_key_values"]
        if cache is None or not cache.layers or not isinstance(cache.layers[0], RoomyLayer):
            return inputs, keywords
        return inputs, {**keywords, "position_ids": 2 * keywords["position_ids"]}

    model.model.register_forward_pre_hook(shift, with_kwargs=True)
    with pytest.raises(
        ModelError, match=r"^model llama: even one prompt at a time, its answers differ from those of transformers'"
    ):
        generate_answers(model, make_tokenizer(0), prompts_of([3, 9]), max_new_tokens=NEW)


def test_thresholds_are_the_lengths_of_a_configuration() -> None:
    configuration = AutoConfig.for_model(
        "phi3", sliding_window=30, **{**MORE_FAMILIES["longrope that reads again"][1], "pad_token_id": None}
    )
    assert list(length_boundaries(configuration)) == [ORIGINAL, 30, 64]


def test_rows_are_divided_by_the_thresholds_that_they_cross() -> None:
    rows = [Row(place, [1] * length, length, 5) for place, length in enumerate([3, 20, 21, 24, 25, 60])]
    assert [[len(row.ids) for row in part] for part in sections(rows, [ORIGINAL])] == [[3, 20], [21, 24], [25, 60]]


def test_probes_cross_what_rows_may_cross() -> None:
    configuration = make_model("longrope that reads again").config
    rows = [Row(place, [7, 8, 9] * place, 3 * place, 15) for place in range(1, 7)]
    probes = probes_of(rows, configuration)
    assert [len(probe.ids) for probe in probes] == [3, 12, 15, 18, ORIGINAL - 1]
    assert all(probe.room == STEPS for probe in probes)
    # Rows whose answers end before the threshold are not lengthened.
    assert [len(probe.ids) for probe in probes_of(rows[:3], configuration)] == [3, 6, 9]
    assert probes_of([], configuration) == []
