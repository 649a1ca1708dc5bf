"""Tokenization of samples for a study's model."""

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradsim import chat
from gradsim.models.limits import has_rotary_positions, longest_input, vocabulary_size
from gradsim.study import Study


def tokenize_for_study(
    samples: pl.DataFrame, study: Study, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> chat.TokenizedTable:
    """Tokenize samples with a study's chat template, mask and exclusions, within the limits of its model.

    Args:
        samples: Frame with columns `id` and `messages`.
        study: The study.
        tokenizer: Tokenizer of the study's model.
        model: The study's model; its weights are not read.

    Raises:
        SampleError: See `gradsim.chat.tokenize_table`.
        ModelError: See `gradsim.chat.tokenize_table`.
    """
    return chat.tokenize_table(
        samples,
        tokenizer,
        template=study.template,
        loss_on=study.chat.loss_on,
        context=longest_input(model),
        rotary_positions=has_rotary_positions(model.config),
        vocabulary=vocabulary_size(model),
        max_length=study.max_length,
        truncate=study.truncate,
        on_long_sample=study.on_long_sample,
        on_bad_sample=study.on_bad_sample,
    )
