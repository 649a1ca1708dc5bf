"""The tulu chat template, its encoding, and the labels of an answer.

The same tokens and labels as open-instruct's `sft_tokenize_mask_out_prompt_v1` makes with its template "tulu": the
prompt and the whole text are encoded apart, and as many labels are masked as the prompt has tokens, whether or not its
tokens begin the whole's.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from gradsim.errors import ModelError, SampleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED = -100
"""The label of a token that the loss does not count, as torch's cross-entropy has it."""

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
        input_ids_prompt: all messages but the last, with the cue for an answer.
        input_ids: all messages.
        attention_mask: ones, as many as `input_ids`.
        labels: `input_ids`, masked over the length of the prompt.
    """

    input_ids_prompt: list[int]
    input_ids: list[int]
    attention_mask: list[int]
    labels: list[int]


class TokenizedTable(NamedTuple):
    """Tokenized samples in `TOKENIZED_SCHEMA`, and why which others were left out."""

    frame: pl.DataFrame
    excluded: dict[str, str]


def render(messages: Sequence[Mapping[str, str]], end_token: str, *, cue: bool) -> str:
    """The text of messages in the tulu template.

    Args:
        messages: with role and content; roles other than system, user and assistant give no text.
        end_token: closes every answer.
        cue: whether the text ends by asking for an answer (`add_generation_prompt`).
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
    """Encodes messages and masks the labels of all but the last.

    Args:
        messages: with role and content; one message alone is its own prompt.
        tokenizer: of any family; no special tokens are added to the template's.
        sample_id: what errors call the sample.

    Raises:
        SampleError: no messages, content that is not text, or a prompt that is longer than the whole text.
        ModelError: a tokenizer without an end token.
    """
    name = "the sample" if sample_id is None else f"sample {sample_id!r}"
    if not messages:
        raise SampleError(f"{name} has no messages; mend or remove it")
    for number, message in enumerate(messages, start=1):
        if message.get("role") in ("system", "user", "assistant") and not isinstance(message.get("content"), str):
            raise SampleError(f"{name} has no text in message {number}; mend or remove it")
    end_token = tokenizer.eos_token
    if not isinstance(end_token, str):
        raise ModelError(f"tokenizer {tokenizer.name_or_path} has no end token; set eos_token in its configuration")

    prompt = _encode(render(messages[:-1] or messages, end_token, cue=True), tokenizer)
    whole = _encode(render(messages, end_token, cue=False), tokenizer)
    if len(prompt) > len(whole):
        raise SampleError(
            f"{name} does not end in an answer: its prompt has {len(prompt)} tokens, all of it {len(whole)}; "
            "let its last message be the assistant's"
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
    """Tokenize every sample; nothing is cut off.

    Args:
        samples: columns `id` and `messages`.
        tokenizer: the studied model's.
        context: the model's longest input in tokens; None: it has no limit.
        rotary_positions: whether the model can be run past its context at all.
        vocabulary: how many input ids the model knows; None: as many as its tokenizer.
        on_long_sample: what becomes of samples that are longer than the context.
        on_bad_sample: what becomes of samples without an unmasked label, whose loss would be 0/0.

    Raises:
        SampleError: a sample that `tokenize` or one of the two choices refuses.
        ModelError: a sample past the context is to be kept, but the model knows no positions there; or a token has no
            embedding.
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
                    f"sample {identifier!r} has {length} tokens but the model's context holds {context}; "
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
