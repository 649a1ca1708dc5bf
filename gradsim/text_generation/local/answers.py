"""Answers of a local model to many prompts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from gradsim.chat import require_embeddings
from gradsim.errors import ModelError
from gradsim.models import context_length
from gradsim.models.fresh_state import fresh_state
from gradsim.models.limits import vocabulary_size
from gradsim.text_generation.local.companies import independent_groups
from gradsim.text_generation.local.decoding import Decoder
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.sampling import Sampling
from gradsim.text_generation.local.schedule import decode

LONGEST_ANSWER = 2048
"""Maximum new tokens for models whose configuration has no context length."""


class GeneratedAnswer(NamedTuple):
    """Answer to a prompt.

    Attributes:
        text: text without the end token; may be empty.
        new_tokens: number of generated tokens without the end token.
        finished: whether the model ended the answer; otherwise it reached `max_new_tokens` or the context length.
        prompt_too_long: whether the context has no room for a new token, so that nothing was generated.
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
    """Generate an answer to each prompt.

    In float32, each answer equals that of transformers' `generate` for the prompt alone, except if the two best tokens
    are nearly tied. Prompts of similar length share a batch with left padding if a check on a few of them shows that
    this does not change answers; otherwise batches are smaller, with a warning. The model carries no state from one
    batch to the next, and its state is restored afterwards.

    Args:
        model: model in eval mode.
        tokenizer: tokenizer of the model; its end token ends an answer.
        prompts: token ids, including the cue for an answer.
        max_new_tokens: maximum new tokens per answer, further limited by the context length. None: up to the context
            length, or `LONGEST_ANSWER` for a model without one.
        tokens_per_batch: maximum tokens of a batch, including answers and padding; a single prompt may exceed it.
        sampling: sampling parameters; None: greedy decoding.
        progress: called with the number of answered prompts and the total.
        on_answer: called with the position of a prompt and its answer as soon as it is complete; prompts that are too
            long come first.

    Returns:
        An answer for each prompt, in order.

    Raises:
        ModelError: the tokenizer has no end token, a token has no embedding, or the model cannot answer prompts
            reproducibly.
    """
    if not isinstance(tokenizer.eos_token_id, int):
        raise ModelError(f"tokenizer {tokenizer.name_or_path} has no end token; set eos_token in its configuration")
    for number, prompt in enumerate(prompts, start=1):
        require_embeddings(f"prompt {number}", [*prompt, tokenizer.eos_token_id], tokenizer, vocabulary_size(model))
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
    """Return a row for each prompt; `room` is zero or negative for prompts that are too long."""
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
    """Return the answer of a row; its ids do not include the end token."""
    return GeneratedAnswer(str(tokenizer.decode(row.new_ids)), len(row.new_ids), row.ended)


@contextmanager
def _plain_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Replace the model's generation configuration, which `generate` uses as defaults, by an empty one."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
