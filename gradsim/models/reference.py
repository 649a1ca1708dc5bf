"""Tiny reference model with the OLMo architecture, small enough to train on a laptop's CPU in a minute.

Provides meaningful gradients for studies on any machine: with untrained weights, all samples have similar gradients.
"""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gradsim import chat
from gradsim.errors import SampleError
from gradsim.models.fetching import load_tokenizer
from gradsim.study import Truncation
from gradsim.study.datasets import MASKED_TOKENS, TEXT, TOKENS

END_TOKEN = "<|endoftext|>"
PADDING_TOKEN = "<|padding|>"

_LEARNING_RATE = 3e-3
_WARM_UP_SHARE = 0.1
_THREADS = 2  # fixed, because the number of threads affects the last bits of sums
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")


class TrainedModel(NamedTuple):
    """Result of training the reference model.

    Attributes:
        folder: folder with weights (safetensors), configuration and tokenizer.
        parameters: number of parameters, tied ones counted once.
        steps: number of updates.
        first_loss: mean cross-entropy of the answer tokens at the first step, in nats.
        final_loss: average of that loss over the last tenth of the steps, in nats.
    """

    folder: Path
    parameters: int
    steps: int
    first_loss: float
    final_loss: float


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
        progress: callback that receives the number of steps done and the total.

    Raises:
        SampleError: A sample has no answer, or is longer than `positions` and `on_long_sample` is "error".
        ModelError: The tokenizer cannot be loaded.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as workplace:
        unfinished = Path(workplace) / "model"
        unfinished.mkdir()
        if tokenizer is None:
            _train_tokenizer(samples, vocabulary).save_pretrained(unfinished)
        else:
            _copy_tokenizer(tokenizer, unfinished)
        encoder = load_tokenizer(str(unfinished))
        with _seeded(seed):
            model = _build(encoder, layers, hidden_size, heads, positions)
            tokenized = chat.tokenize_table(
                samples,
                encoder,
                context=positions,
                max_length=max_length,
                truncate=truncate,
                on_long_sample=on_long_sample,
            )
            batches = _batches(tokenized.frame, tokens_per_step)
            losses = _train(model, batches, steps, progress)
        model.save_pretrained(unfinished)
        _put_in_place(unfinished, folder, Path(workplace))
    last = losses[-max(1, steps // 10) :]
    return TrainedModel(folder, model.num_parameters(), steps, losses[0], math.fsum(last) / len(last))


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


def _copy_tokenizer(source: Path, target: Path) -> None:
    for path in sorted({path for pattern in _TOKENIZER_FILES for path in source.glob(pattern)}):
        shutil.copyfile(path, target / path.name)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch and make it deterministic inside the context; restore its settings and random state on exit."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(_THREADS)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(threads)


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


class _Batch(NamedTuple):
    """Batch of samples of similar length, padded on the right; both tensors are (samples, tokens).

    No attention mask is needed: under causal attention, no token attends to the padding on its right.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor


def _batches(tokenized: pl.DataFrame, tokens_per_step: int) -> list[_Batch]:
    by_length = tokenized.sort(pl.col("input_ids").list.len(), maintain_order=True)
    rows = list(by_length.select("input_ids", "labels").iter_rows())
    batches: list[_Batch] = []
    start = 0
    for end in range(1, len(rows) + 1):
        # Rows are sorted by length, so the next row determines the padded width of a batch that includes it.
        if end == len(rows) or (end - start + 1) * len(rows[end][0]) > tokens_per_step:
            batch = rows[start:end]
            width = len(batch[-1][0])
            batches.append(
                _Batch(
                    _padded([input_ids for input_ids, _ in batch], width, 0),
                    _padded([labels for _, labels in batch], width, chat.MASKED),
                )
            )
            start = end
    return batches


def _padded(rows: Sequence[list[int]], width: int, filler: int) -> torch.Tensor:
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


def _train(
    model: OlmoForCausalLM,
    batches: Sequence[_Batch],
    steps: int,
    progress: Callable[[int, int], None] | None,
) -> list[float]:
    """Train the model in place and return the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, steps))
    order: list[int] = []
    losses: list[float] = []
    model.train()
    for step in range(1, steps + 1):
        if not order:
            order = torch.randperm(len(batches)).tolist()
        batch = batches[order.pop()]
        loss = model(input_ids=batch.input_ids, labels=batch.labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if progress:
            progress(step, steps)
    model.eval()
    return losses


def _learning_rate_factor(step: int, steps: int) -> float:
    """Return the learning-rate multiplier of a step: linear warm-up, then cosine decay to 0.1."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _put_in_place(finished: Path, folder: Path, workplace: Path) -> None:
    if folder.exists():
        folder.rename(workplace / "replaced")
    finished.rename(folder)
