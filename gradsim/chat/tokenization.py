"""Tokenization and label masking.

In the "tulu" template, tokens and labels are identical to those of open-instruct's `sft_tokenize_mask_out_prompt_v1`:
the prompt and the whole conversation are encoded separately, and the first `len(prompt)` labels are masked, even if the
prompt's tokens are not a prefix of the conversation's. In a tokenizer's own chat template, tokens are identical to
those of `apply_chat_template`, and labels follow the characters of the answers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl

from gradsim.chat.template import loss_spans, render_template
from gradsim.chat.tulu import render
from gradsim.chat.verbatim import verbatim_tokens
from gradsim.errors import ModelError, SampleError
from gradsim.study import LossOn, TemplateName, Truncation

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
        labels: `input_ids` with masked entries where the loss does not apply.
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
        truncated: Id of each truncated sample, mapped to what is left of it.
    """

    frame: pl.DataFrame
    excluded: dict[str, str]
    truncated: dict[str, str]


def tokenize(
    messages: Sequence[Mapping[str, str]],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    template: TemplateName = "tulu",
    loss_on: LossOn = "last_answer",
    sample_id: str | None = None,
) -> TokenizedSample:
    """Encode messages, and mask the labels that the loss does not cover.

    Texts and token ids (`gradsim.chat.verbatim`) are encoded without a template; the loss covers a text as a whole.

    Args:
        messages: Messages with role and content.
        tokenizer: Tokenizer of any family; no special tokens are added to those of the template.
        template: `tulu`, or `model` for the tokenizer's own chat template.
        loss_on: Messages that the loss covers: the last answer, all answers, or everything but a system prompt that
            the template adds by itself. The tulu template supports the last answer.
        sample_id: Id of the sample in error messages.

    Raises:
        SampleError: There are no messages, content is not text, the last message is no answer, or the template rejects
            the messages.
        ModelError: The tokenizer has no end token, no chat template, or no character offsets.
    """
    name = "the sample" if sample_id is None else f"sample {sample_id!r}"
    if not messages:
        raise SampleError(f"{name} has no messages; fix or remove it")
    if verbatim := verbatim_tokens(messages, tokenizer):
        labels = [token if counts else MASKED for token, counts in zip(*verbatim, strict=True)]
        return TokenizedSample([], verbatim.ids, [1] * len(labels), labels)
    for number, message in enumerate(messages, start=1):
        if message.get("role") in ("system", "user", "assistant") and not isinstance(message.get("content"), str):
            raise SampleError(f"{name} has no text in message {number}; fix or remove it")
    try:
        if template == "tulu":
            return _tokenize_tulu(messages, tokenizer)
        return _tokenize_with_template(messages, tokenizer, loss_on)
    except SampleError as error:
        raise SampleError(f"{name} {error}") from error


def prompt_ids(
    messages: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase", template: TemplateName
) -> list[int]:
    """Return the token ids of a prompt, followed by the generation prompt.

    Args:
        messages: Messages with role and content.
        tokenizer: Tokenizer of any family.
        template: `tulu`, or `model` for the tokenizer's own chat template.

    Raises:
        ModelError: The tokenizer has no chat template.
        SampleError: The template rejects the messages.
    """
    if template == "tulu":
        return _encode(render(messages, _end_token(tokenizer), cue=True), tokenizer)
    return _encode(render_template(messages, tokenizer, cue=True), tokenizer)


def _tokenize_tulu(messages: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase") -> TokenizedSample:
    """Mask the first `len(prompt)` labels, as open-instruct does; a single message is its own prompt."""
    prompt = prompt_ids(messages[:-1] or messages, tokenizer, "tulu")
    whole = _encode(render(messages, _end_token(tokenizer), cue=False), tokenizer)
    if len(prompt) > len(whole):
        raise SampleError(
            f"does not end with an answer: its prompt has {len(prompt)} tokens, the whole text only {len(whole)}; "
            "make the assistant's answer the last message"
        )
    labels = [MASKED] * len(prompt) + whole[len(prompt) :]
    return TokenizedSample(prompt, whole, [1] * len(whole), labels)


def _tokenize_with_template(
    messages: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase", loss_on: LossOn
) -> TokenizedSample:
    """Mask by characters: a token counts if it contains any character that the loss covers."""
    text = render_template(messages, tokenizer, cue=False)
    spans = loss_spans(messages, tokenizer, text, loss_on)
    if not tokenizer.is_fast:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path} has no character offsets; convert it to tokenizer.json, or set "
            "`chat.template: tulu` in the study file"
        )
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    whole = list(encoding["input_ids"])
    covered = [
        any(start < span.end and end > span.start for span in spans) for start, end in encoding["offset_mapping"]
    ]
    if loss_on != "everything" and _marks_answers(tokenizer):
        covered = [both and mark for both, mark in zip(covered, _answer_marks(messages, tokenizer), strict=True)]
    labels = [token if counts else MASKED for token, counts in zip(whole, covered, strict=True)]
    prompt = prompt_ids(messages[:-1], tokenizer, "model") if messages[:-1] else []
    return TokenizedSample(prompt, whole, [1] * len(whole), labels)


def _marks_answers(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Return whether the template marks answers with `{% generation %}`."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", tokenizer.get_chat_template()) is not None


def _answer_marks(messages: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase") -> list[bool]:
    encoding: Any = tokenizer.apply_chat_template(
        list(map(dict, messages)), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return [bool(mark) for mark in encoding["assistant_masks"]]


def _end_token(tokenizer: "PreTrainedTokenizerBase") -> str:
    if not isinstance(tokenizer.eos_token, str):
        raise ModelError(f"tokenizer {tokenizer.name_or_path} has no end token; set eos_token in its configuration")
    return tokenizer.eos_token


def tokenize_table(
    samples: pl.DataFrame,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    template: TemplateName = "tulu",
    loss_on: LossOn = "last_answer",
    context: int | None,
    max_length: int | None = None,
    truncate: Truncation = "none",
    rotary_positions: bool = True,
    vocabulary: int | None = None,
    on_long_sample: Literal["error", "exclude", "keep"] = "error",
    on_bad_sample: Literal["error", "exclude"] = "error",
) -> TokenizedTable:
    """Tokenize every sample.

    Args:
        samples: Frame with columns `id` and `messages`.
        tokenizer: Tokenizer of the studied model.
        template: See `tokenize`.
        loss_on: See `tokenize`.
        context: Context length of the model in tokens; None means unlimited.
        max_length: Most tokens of a sample, if that is less than the context.
        truncate: Side on which tokens beyond this limit are cut off; "none" leaves the sample to `on_long_sample`.
        rotary_positions: Whether the model accepts inputs longer than its context.
        vocabulary: Number of input embeddings; None skips the check of token ids.
        on_long_sample: Handling of samples longer than the limit.
        on_bad_sample: Handling of samples without an unmasked label, for which the mean loss would be 0/0.

    Raises:
        SampleError: `tokenize` rejects a sample, or a sample is too long or has no unmasked label and the handling is
            "error".
        ModelError: A sample to keep is longer than the context but the model has no positions there, or a token has
            no embedding.
    """
    limit = min((each for each in (context, max_length) if each is not None), default=None)
    rows: list[tuple[str, list[int], list[int], list[int]]] = []
    excluded: dict[str, str] = {}
    truncated: dict[str, str] = {}
    for identifier, messages in samples.select("id", "messages").iter_rows():
        sample = tokenize(messages, tokenizer, template=template, loss_on=loss_on, sample_id=identifier)
        length = len(sample.input_ids)
        if vocabulary is not None:
            require_embeddings(f"sample {identifier!r}", sample.input_ids, tokenizer, vocabulary)
        if limit is not None and length > limit:
            if truncate != "none":
                sample = _truncated(sample, limit, truncate)
            elif on_long_sample == "error":
                what = "the model's context length" if limit == context else "max_length"
                choices = "exclude or keep" if limit == context else "exclude"
                raise SampleError(
                    f"sample {identifier!r} has {length} tokens but {what} is {limit}; set `truncate` in the study "
                    f"file, or `on_long_sample` to {choices} (now error)"
                )
            elif on_long_sample == "exclude":
                held = "the model's context holds" if limit == context else "max_length is"
                excluded[identifier] = f"{length} tokens, {held} {limit}"
                continue
            elif limit == context and not rotary_positions:
                raise ModelError(
                    f"sample {identifier!r} has {length} tokens but the model has no positions past {limit}; "
                    "set `on_long_sample` in the study file to exclude or error (now keep)"
                )
        kept = len(sample.input_ids)
        if all(label == MASKED for label in sample.labels[1:]):  # nothing predicts the first token
            left = f" in the {kept} of {length} tokens that truncation leaves" if kept < length else ""
            if on_bad_sample == "error":
                raise SampleError(
                    f"sample {identifier!r} has no unmasked label{left}, so it has no loss; "
                    "set `on_bad_sample: exclude` in the study file or remove it"
                )
            excluded[identifier] = f"no unmasked label{left}"
            continue
        if kept < length:
            truncated[identifier] = f"{'last' if truncate == 'left' else 'first'} {limit} of {length} tokens"
        rows.append((identifier, sample.input_ids_prompt, sample.input_ids, sample.labels))
    return TokenizedTable(pl.DataFrame(rows, schema=TOKENIZED_SCHEMA, orient="row"), excluded, truncated)


def _truncated(sample: TokenizedSample, length: int, side: Truncation) -> TokenizedSample:
    """Return a sample without the tokens beyond a length on one side; nothing is added, not even a BOS."""
    part = slice(len(sample.input_ids) - length, None) if side == "left" else slice(length)
    return TokenizedSample(*(values[part] for values in sample))


def require_embeddings(
    name: str, input_ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase", vocabulary: int
) -> None:
    """Require that a model has an embedding for every token.

    Args:
        name: What the tokens belong to, in the error message.
        input_ids: Token ids.
        tokenizer: Tokenizer that made them.
        vocabulary: Number of input embeddings.

    Raises:
        ModelError: A token has no embedding.
    """
    if (number := max(input_ids, default=0)) >= vocabulary:
        token = tokenizer.convert_ids_to_tokens(number)
        raise ModelError(
            f"{name} has token {number} ({token!r}), but the model has {vocabulary} embeddings and its tokenizer "
            f"{len(tokenizer)} tokens; use the tokenizer that it was trained with, or resize its embeddings "
            "(resize_token_embeddings) and train them"
        )


def _encode(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
