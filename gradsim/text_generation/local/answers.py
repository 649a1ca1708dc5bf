"""Answers of a model to many prompts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from gradsim.errors import ModelError
from gradsim.models import context_length
from gradsim.models.fresh_state import fresh_state
from gradsim.text_generation.local.companies import independent_groups
from gradsim.text_generation.local.decoding import Decoder
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.sampling import Sampling
from gradsim.text_generation.local.schedule import decode

LONGEST_ANSWER = 2048
"""In tokens: a model without a stated context is not left to ramble."""


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


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | None,
    tokens_per_batch: int = 16_384,
    sampling: Sampling | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_answer: Callable[[int, GeneratedAnswer], None] | None = None,
) -> list[GeneratedAnswer]:
    """Continue every prompt until the end token.

    In float32 each answer is the one that transformers' `generate` gives to the prompt alone, except where the two
    best tokens are as good as tied. Prompts of similar length share a batch, padded at their left, where a check on
    some of them finds that this changes nothing; otherwise fewer share one, and a warning says so. The model keeps
    nothing from one batch to the next, and is left as it was.

    Args:
        model: in eval mode.
        tokenizer: the model's; its end token ends an answer.
        prompts: token ids, the cue for an answer at their end.
        max_new_tokens: of each answer; fewer where the context ends before. None: up to the context, or
            `LONGEST_ANSWER` where the model states none.
        tokens_per_batch: bounds prompts and answers of a batch, padding included; at least one prompt is in it.
        sampling: None: the likeliest token is taken.
        progress: called with the prompts done and in all.
        on_answer: called with a prompt's position and its answer as soon as that is complete; first for prompts that
            are too long, before any other is looked at.

    Returns:
        An answer for each prompt, in order.

    Raises:
        ModelError: a tokenizer without an end token, or a model that does not answer the same prompt in the same way.
    """
    if not isinstance(tokenizer.eos_token_id, int):
        raise ModelError(f"tokenizer {tokenizer.name_or_path} has no end token; set eos_token in its configuration")
    answers: dict[int, GeneratedAnswer] = {}

    def hand_over(position: int, answer: GeneratedAnswer) -> None:
        answers[position] = answer
        if on_answer:
            on_answer(position, answer)
        if progress:
            progress(len(answers), len(prompts))

    rows = _rows(prompts, max_new_tokens, context_length(model.config), sampling)
    for row in rows:
        if row.room < 1:
            hand_over(row.position, GeneratedAnswer("", 0, finished=False, prompt_too_long=True))
    with _plain_defaults(model), fresh_state(model) as state:
        decoder = Decoder(
            model, state, end=tokenizer.eos_token_id, temperature=sampling.temperature if sampling else None
        )
        for group in independent_groups(model, state, [row for row in rows if row.room > 0], tokens_per_batch):
            decode(group, decoder.start, tokens_per_batch, lambda row: hand_over(row.position, _answer(row, tokenizer)))
    return [answers[position] for position in range(len(prompts))]


def _rows(
    prompts: Sequence[Sequence[int]], max_new_tokens: int | None, context: int | None, sampling: Sampling | None
) -> list[Row]:
    """Each prompt with the tokens that it may take, none or less where it is too long."""
    longest = max_new_tokens or context or LONGEST_ANSWER
    seeds: Sequence[int | None] = sampling.seeds if sampling else [None] * len(prompts)
    return [
        Row(
            position,
            list(prompt),
            len(prompt),
            room=longest if context is None else min(longest, context - len(prompt)),
            seed=seed,
        )
        for position, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]


def _answer(row: Row, tokenizer: PreTrainedTokenizerBase) -> GeneratedAnswer:
    """Decodes the ids before the end token: cutting the text would lose a character where there is none."""
    return GeneratedAnswer(str(tokenizer.decode(row.new_ids)), len(row.new_ids), row.ended)


@contextmanager
def _plain_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Hides the model's own generation settings, with which `generate` fills what a call leaves open."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
