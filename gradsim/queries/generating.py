"""Texts by a model on this machine: the prompts of another setting, answered by the studied model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from gradsim import chat
from gradsim.dataset.turns import last_turn
from gradsim.queries.method import MadeQueries, QueryContext, query_frame, rewrite
from gradsim.study.settings import Generate
from gradsim.text_generation import local

if TYPE_CHECKING:
    from gradsim.text_generation.local import GeneratedAnswer, Sampling


def generated_answers(
    context: QueryContext,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | None,
    sampling: "Sampling | None" = None,
) -> "list[GeneratedAnswer]":
    """Return the answers of the context's model, journaled under the context's name.

    Args:
        context: context with a model.
        prompts: token ids.
        max_new_tokens: maximum length of an answer in tokens; None: up to the context length.
        sampling: None: greedy decoding.

    Raises:
        GradsimError: The model cannot be loaded, or the journal cannot be written.
    """
    assert context.model is not None
    return local.journaled_answers(
        context.model,
        prompts,
        context.journals / f"{context.name}.jsonl",
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        force=context.force,
        progress=context.progress,
        say=context.say,
    )


@rewrite.register
def _answer_prompts(settings: Generate, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    assert context.model is not None
    prompts = [messages[: last_turn(messages)["assistant"]] for messages in samples["messages"].to_list()]
    encoded = [chat.prompt_ids(prompt, context.model.tokenizer, context.template) for prompt in prompts]
    answers = generated_answers(context, encoded, max_new_tokens=settings.max_new_tokens)
    rows = {
        place: [*prompt, {"role": "assistant", "content": answer.text}]
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        if not answer.prompt_too_long
    }
    reasons = [[*([None] * len(prompts[place])), "stop" if answers[place].finished else "length"] for place in rows]
    return MadeQueries(
        query_frame(samples[list(rows)], list(rows.values()), finish_reasons=reasons),
        excluded=dict.fromkeys(
            (name for place, name in enumerate(samples["id"]) if place not in rows),
            "its prompt leaves the model no room to answer",
        ),
        measured={"answers": len(answers), "new_tokens": sum(answer.new_tokens for answer in answers)},
    )
