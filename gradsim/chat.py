"""Tulu chat template, tokenization and label masking.

Tokens and labels are identical to those of open-instruct's `sft_tokenize_mask_out_prompt_v1` with the "tulu" template.
The prompt and the whole conversation are encoded separately, and the first `len(prompt)` labels are masked, even if the
prompt's tokens are not a prefix of the conversation's.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from gradsim.errors import ModelError, SampleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED = -100
"""Label of tokens excluded from the loss; the default `ignore_index` of torch's cross-entropy."""

TOKENIZED_SCHEMA = pl.Schema(
    {
        "id": pl.String(),
        "input_ids_prompt": pl.List(pl.Int32()),
        "input_ids": pl.List(pl.Int32()),
        "labels": pl.List(pl.Int32()),
    }
)


class TokenizedSample(NamedTuple):
    """Token ids of one sample.

    Attributes:
        input_ids_prompt: Tokens of all messages but the last, followed by the generation prompt.
        input_ids: Tokens of all messages.
        attention_mask: Ones, with the length of `input_ids`.
        labels: `input_ids` with the first `len(input_ids_prompt)` entries masked.
    """

    input_ids_prompt: list[int]
    input_ids: list[int]
    attention_mask: list[int]
    labels: list[int]


class TokenizedTable(NamedTuple):
    """Tokenized samples and the reasons for exclusions.

    Attributes:
        frame: Samples in `TOKENIZED_SCHEMA`.
        excluded: Id of each excluded sample, mapped to the reason.
    """

    frame: pl.DataFrame
    excluded: dict[str, str]


def render(messages: Sequence[Mapping[str, str]], end_token: str, *, cue: bool) -> str:
    """Return messages as text in the Tulu template.

    Args:
        messages: Messages with role and content; roles other than system, user and assistant produce no text.
        end_token: Token appended to every answer.
        cue: Whether to append the generation prompt (`add_generation_prompt`).
    """
    last = len(messages) - 1
    parts: list[str] = []
    for position, message in enumerate(messages):
        match message.get("role"):
            case "system" | "user" as role:
                parts.append(f"<|{role}|>\n{message['content']}\n")
            case "assistant":
                line_end = "" if position == last else "\n"
                parts.append(f"<|assistant|>\n{message['content']}{end_token}{line_end}")
    return "".join(parts) + ("<|assistant|>\n" if cue else "")


def tokenize(
    messages: Sequence[Mapping[str, str]],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    sample_id: str | None = None,
) -> TokenizedSample:
    """Encode messages and mask the labels of all messages but the last.

    Args:
        messages: Messages with role and content; a single message is its own prompt.
        tokenizer: Tokenizer of any family; no special tokens are added to those of the template.
        sample_id: Id of the sample in error messages.

    Raises:
        SampleError: There are no messages, content is not text, or the prompt is longer than the whole text.
        ModelError: The tokenizer has no end token.
    """
    name = "the sample" if sample_id is None else f"sample {sample_id!r}"
    if not messages:
        raise SampleError(f"{name} has no messages; fix or remove it")
    for number, message in enumerate(messages, start=1):
        if message.get("role") in ("system", "user", "assistant") and not isinstance(message.get("content"), str):
            raise SampleError(f"{name} has no text in message {number}; fix or remove it")
    end_token = tokenizer.eos_token
    if not isinstance(end_token, str):
        raise ModelError(f"tokenizer {tokenizer.name_or_path} has no end token; set eos_token in its configuration")

    prompt = _encode(render(messages[:-1] or messages, end_token, cue=True), tokenizer)
    whole = _encode(render(messages, end_token, cue=False), tokenizer)
    if len(prompt) > len(whole):
        raise SampleError(
            f"{name} does not end with an answer: its prompt has {len(prompt)} tokens, the whole text only "
            f"{len(whole)}; make the assistant's answer the last message"
        )
    labels = [MASKED] * len(prompt) + whole[len(prompt) :]
    return TokenizedSample(prompt, whole, [1] * len(whole), labels)


def tokenize_table(
    samples: pl.DataFrame,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    context: int | None,
    rotary_positions: bool = True,
    vocabulary: int | None = None,
    on_long_sample: Literal["error", "exclude", "keep"] = "error",
    on_bad_sample: Literal["error", "exclude"] = "error",
) -> TokenizedTable:
    """Tokenize every sample without truncation.

    Args:
        samples: Frame with columns `id` and `messages`.
        tokenizer: Tokenizer of the studied model.
        context: Context length of the model in tokens; None means unlimited.
        rotary_positions: Whether the model accepts inputs longer than its context.
        vocabulary: Number of input embeddings; None skips the check of token ids.
        on_long_sample: Handling of samples longer than the context.
        on_bad_sample: Handling of samples without an unmasked label, for which the mean loss would be 0/0.

    Raises:
        SampleError: `tokenize` rejects a sample, or a sample is too long or has no unmasked label and the handling is
            "error".
        ModelError: A sample to keep is longer than the context but the model has no positions there, or a token has
            no embedding.
    """
    rows: list[tuple[str, list[int], list[int], list[int]]] = []
    excluded: dict[str, str] = {}
    for identifier, messages in samples.select("id", "messages").iter_rows():
        sample = tokenize(messages, tokenizer, sample_id=identifier)
        length = len(sample.input_ids)
        if vocabulary is not None and (number := max(sample.input_ids, default=0)) >= vocabulary:
            token = tokenizer.convert_ids_to_tokens(number)
            raise ModelError(
                f"sample {identifier!r} has token {number} ({token!r}), but the model has {vocabulary} embeddings and "
                f"its tokenizer {len(tokenizer)} tokens; use the tokenizer that it was trained with, or resize its "
                "embeddings (resize_token_embeddings) and train them"
            )
        if context is not None and length > context:
            if on_long_sample == "error":
                raise SampleError(
                    f"sample {identifier!r} has {length} tokens but the model's context length is {context}; "
                    "set `on_long_sample` in the study file to exclude or keep (now error)"
                )
            if on_long_sample == "exclude":
                excluded[identifier] = f"{length} tokens, the model's context holds {context}"
                continue
            if not rotary_positions:
                raise ModelError(
                    f"sample {identifier!r} has {length} tokens but the model has no positions past {context}; "
                    "set `on_long_sample` in the study file to exclude or error (now keep)"
                )
        if len(sample.input_ids_prompt) == length:
            if on_bad_sample == "error":
                raise SampleError(
                    f"sample {identifier!r} has no unmasked label, so it has no loss; "
                    "set `on_bad_sample: exclude` in the study file or remove it"
                )
            excluded[identifier] = "no unmasked label"
            continue
        rows.append((identifier, sample.input_ids_prompt, sample.input_ids, sample.labels))
    return TokenizedTable(pl.DataFrame(rows, schema=TOKENIZED_SCHEMA, orient="row"), excluded)


def _encode(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
