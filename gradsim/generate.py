"""Greedy answers of the studied model, batched."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from gradsim.errors import ModelError
from gradsim.models import context_length


class GeneratedAnswer(NamedTuple):
    """One prompt's answer.

    Attributes:
        text: without the end token; may be empty.
        new_tokens: how many were generated, the end token not counted.
        finished: the model ended the answer itself; otherwise it hit `max_new_tokens` or the context.
        prompt_too_long: the context has no room for even one new token, so nothing was generated.
    """

    text: str
    new_tokens: int
    finished: bool
    prompt_too_long: bool = False


class _Batch(NamedTuple):
    """Prompts that are answered together, by position, and the tokens that each may take."""

    positions: list[int]
    max_new_tokens: int


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    tokens_per_batch: int = 16_384,
    progress: Callable[[int, int], None] | None = None,
) -> list[GeneratedAnswer]:
    """Continues every prompt by the likeliest token until the end token.

    Prompts of similar length share a batch, padded at their left; in float32 each answer is the one that the prompt
    alone would get, but where the two best tokens are as good as tied.

    Args:
        model: in eval mode.
        tokenizer: the model's; its end token ends an answer.
        prompts: token ids, the cue for an answer at their end.
        max_new_tokens: of each answer; fewer where the context ends before.
        tokens_per_batch: bounds prompts and answers of a batch, padding included; at least one prompt is in it.
        progress: called with the prompts done and in all.

    Returns:
        An answer for each prompt, in order.

    Raises:
        ModelError: a tokenizer without an end token.
    """
    if not isinstance(tokenizer.eos_token_id, int):
        raise ModelError(f"tokenizer {tokenizer.name_or_path} has no end token; set eos_token in its configuration")
    end = tokenizer.eos_token_id
    answers = [GeneratedAnswer("", 0, finished=False, prompt_too_long=True)] * len(prompts)
    lengths = [len(prompt) for prompt in prompts]
    batches = _batches(lengths, context_length(model.config), max_new_tokens, tokens_per_batch)
    done = len(prompts) - sum(len(batch.positions) for batch in batches)
    with _plain_defaults(model):
        for batch in batches:
            rows = _continue(model, [prompts[position] for position in batch.positions], end, batch.max_new_tokens)
            for position, row in zip(batch.positions, rows, strict=True):
                answers[position] = _answer(row, end, tokenizer)
            done += len(batch.positions)
            if progress:
                progress(done, len(prompts))
    return answers


def _batches(lengths: Sequence[int], context: int | None, max_new_tokens: int, tokens_per_batch: int) -> list[_Batch]:
    """Prompts by length; those of one batch may take equally many new tokens. Leaves out what has no room for one."""
    batches: list[_Batch] = []
    for position in sorted(range(len(lengths)), key=lambda position: lengths[position]):
        length = lengths[position]
        room = max_new_tokens if context is None else min(max_new_tokens, context - length)
        if room < 1:
            continue
        last = batches[-1] if batches else None
        if (
            last is not None
            and last.max_new_tokens == room
            and (len(last.positions) + 1) * (length + room) <= tokens_per_batch
        ):
            last.positions.append(position)
        else:
            batches.append(_Batch([position], room))
    return batches


def _continue(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], end: int, max_new_tokens: int
) -> list[list[int]]:
    """The new ids of each prompt; after its end token a row may go on with more of them."""
    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    input_ids = [[end] * blank + list(prompt) for blank, prompt in zip(padding, prompts, strict=True)]
    attention_mask = [[0] * blank + [1] * (width - blank) for blank in padding]
    configuration = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=end
    )
    generate: Any = model.generate
    with torch.inference_mode():
        output = generate(
            torch.tensor(input_ids, device=model.device),
            attention_mask=torch.tensor(attention_mask, device=model.device),
            generation_config=configuration,
        )
    new_ids: list[list[int]] = output[:, width:].tolist()
    return new_ids


def _answer(new_ids: list[int], end: int, tokenizer: PreTrainedTokenizerBase) -> GeneratedAnswer:
    """Decodes ids up to the first end token: cutting the text would lose a character where there is none."""
    finished = end in new_ids
    kept = new_ids[: new_ids.index(end)] if finished else new_ids
    return GeneratedAnswer(str(tokenizer.decode(kept)), len(kept), finished)


@contextmanager
def _plain_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Hides the model's own generation settings, with which `generate` fills what a call leaves open."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
