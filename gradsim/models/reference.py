"""Tiny reference model with the OLMo architecture, small enough to train on a laptop's CPU in a minute.

Provides meaningful gradients for studies on any machine: with untrained weights, all samples have similar gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gradsim import chat
from gradsim.errors import SampleError
from gradsim.models.fetching import copy_tokenizer, load_tokenizer
from gradsim.models.training import Checkpoint, TrainedModel, replaced_folder, seeded, train
from gradsim.study import Truncation
from gradsim.study.datasets import MASKED_TOKENS, TEXT, TOKENS

END_TOKEN = "<|endoftext|>"
PADDING_TOKEN = "<|padding|>"

_LEARNING_RATE = 3e-3
_THREADS = 2  # fixed, because their number affects the last bits of sums


def train_reference_model(
    samples: pl.DataFrame,
    folder: Path,
    *,
    layers: int = 3,
    hidden_size: int = 128,
    heads: int = 4,
    vocabulary: int = 2048,
    positions: int = 2048,
    tokenizer: Path | None = None,
    steps: int = 200,
    tokens_per_step: int = 1024,
    seed: int = 42,
    max_length: int | None = None,
    truncate: Truncation = "none",
    on_long_sample: Literal["error", "exclude", "keep"] = "error",
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedModel:
    """Train an OLMo-style model on the answers of `samples` and write it to `folder`.

    The model has SwiGLU, tied embeddings, norms without parameters, and no biases. Training runs AdamW on the CPU, on
    the loss that a study differentiates. The same seed on the same machine gives bit-identical weights. If training
    fails, `folder` is left unchanged.

    Args:
        samples: table with columns `id` and `messages`.
        folder: output folder, replaced if it exists.
        layers: number of transformer blocks.
        hidden_size: width of the residual stream; the feed-forward layers are four times as wide.
        heads: number of attention heads.
        vocabulary: maximum number of entries of the tokenizer trained on the samples.
        positions: context length of the model in tokens.
        tokenizer: folder of a tokenizer to use instead of training one.
        steps: number of updates; the samples repeat as often as needed.
        tokens_per_step: maximum tokens per batch, including padding; a longer sample forms its own batch.
        seed: random seed for the weights and the order of batches.
        max_length: see `gradsim.chat.tokenize_table`.
        truncate: see `gradsim.chat.tokenize_table`.
        on_long_sample: handling of samples longer than `positions`.
        checkpoint: see `gradsim.models.training.train`.
        progress: callback that receives the number of steps done and the total.

    Raises:
        SampleError: A sample has no answer, or is longer than `positions` and `on_long_sample` is "error".
        ModelError: The tokenizer cannot be loaded.
    """
    with replaced_folder(folder) as unfinished:
        if tokenizer is None:
            _train_tokenizer(samples, vocabulary).save_pretrained(unfinished)
        else:
            copy_tokenizer(tokenizer, unfinished)
        encoder = load_tokenizer(str(unfinished))
        with seeded(seed, torch.device("cpu"), _THREADS):
            model = _build(encoder, layers, hidden_size, heads, positions)
            tokenized = chat.tokenize_table(
                samples,
                encoder,
                context=positions,
                max_length=max_length,
                truncate=truncate,
                on_long_sample=on_long_sample,
            )
            losses = train(
                model,
                tokenized.frame,
                steps=steps,
                learning_rate=_LEARNING_RATE,
                tokens_per_step=tokens_per_step,
                checkpoint=checkpoint,
                progress=progress,
            )
        model.save_pretrained(unfinished)
    return TrainedModel.of(folder, model, losses)


def _train_tokenizer(samples: pl.DataFrame, vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer on the samples' text, that of conversations in the Tulu template.

    Raises:
        SampleError: The samples are token ids.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_TOKEN, PADDING_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [_text(messages) for messages in samples["messages"].to_list()]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_TOKEN,
        eos_token=END_TOKEN,
        unk_token=END_TOKEN,
        pad_token=PADDING_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    role, content = messages[0]["role"], messages[0]["content"]
    if role in (TOKENS, MASKED_TOKENS):
        raise SampleError(
            "the samples are token ids, so no tokenizer can be trained on them; set `model.reference.tokenizer` in the "
            "study file to the folder of the one that made them"
        )
    return content if role == TEXT else chat.render(messages, END_TOKEN, cue=False)


def reference_configuration(
    vocabulary: int,
    *,
    layers: int,
    hidden_size: int,
    heads: int,
    positions: int,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
) -> OlmoConfig:
    """Return the configuration of the reference model.

    Args:
        vocabulary: number of entries of the tokenizer.
        layers: see `train_reference_model`.
        hidden_size: see `train_reference_model`.
        heads: see `train_reference_model`.
        positions: see `train_reference_model`.
        bos_token_id: id of the tokenizer's beginning-of-sequence token.
        eos_token_id: id of the tokenizer's end-of-sequence token.
        pad_token_id: id of the tokenizer's padding token.
    """
    return OlmoConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        initializer_range=hidden_size**-0.5,  # the usual 0.02 suits wide models; narrow ones learn slowly from it
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )


def _build(
    tokenizer: PreTrainedTokenizerBase, layers: int, hidden_size: int, heads: int, positions: int
) -> OlmoForCausalLM:
    configuration = reference_configuration(
        len(tokenizer),
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        positions=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return OlmoForCausalLM(configuration)
