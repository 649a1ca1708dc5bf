"""Texts and token ids, which no chat template renders."""

from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gradsim.chat import MASKED, decoded, tokenize, tokenize_table
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import ModelError, SampleError


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    """One token a word, a begin token before every text, and no chat template."""
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *"abcde"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def text(content: str) -> list[dict[str, str]]:
    return [{"role": "text", "content": content}]


TOKENS = [{"role": "masked tokens", "content": "1 3"}, {"role": "tokens", "content": "4 2"}]
CHOICES: list[Any] = [
    {"template": template, "loss_on": on} for template in ("tulu", "model") for on in ("last_answer", "everything")
]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_text_has_the_tokenizers_own_tokens_and_a_loss_on_all(words: PreTrainedTokenizerBase, choice: Any) -> None:
    sample = tokenize(text("a b </s>"), words, **choice)
    assert sample.input_ids == words("a b </s>")["input_ids"] == [1, 3, 4, 2]
    assert (sample.labels, sample.input_ids_prompt) == (sample.input_ids, [])


def test_a_text_that_begins_with_the_begin_token_has_no_second_one(words: PreTrainedTokenizerBase) -> None:
    assert tokenize(text("<s> a b"), words).input_ids == [1, 3, 4]


@pytest.mark.parametrize("choice", CHOICES)
def test_token_ids_stay_as_they_are(words: PreTrainedTokenizerBase, choice: Any) -> None:
    sample = tokenize(TOKENS, words, **choice)
    assert (sample.input_ids, sample.labels) == ([1, 3, 4, 2], [MASKED, MASKED, 4, 2])
    assert decoded(TOKENS, words) == [
        {"role": "masked tokens", "content": "<s> a"},
        {"role": "tokens", "content": "b </s>"},
    ]
    assert decoded(text("1 3"), words) == text("1 3")


def table(**messages: list[dict[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(list(messages.items()), schema=SAMPLES_SCHEMA, orient="row")


def test_samples_that_have_no_loss(words: PreTrainedTokenizerBase) -> None:
    """Nothing predicts the first token, so a label there is none."""
    first_only = [{"role": "tokens", "content": "3"}, {"role": "masked tokens", "content": "4"}]
    found = tokenize_table(table(a=first_only, b=TOKENS), words, context=None, on_bad_sample="exclude")
    assert (found.frame["id"].to_list(), found.excluded) == (["b"], {"a": "no unmasked label"})
    with pytest.raises(SampleError, match="sample 'a' has no unmasked label"):
        tokenize_table(table(a=first_only), words, context=None)


def test_token_ids_of_another_tokenizer(words: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ModelError, match=r"sample 'a' has token 9 \(None\), but the model has 8 embeddings"):
        tokenize_table(table(a=[{"role": "tokens", "content": "3 9"}]), words, context=None, vocabulary=8)
