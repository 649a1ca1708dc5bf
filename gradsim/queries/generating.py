"""Queries with the prompts of another setting, answered by the studied model."""

import polars as pl

from gradsim import chat
from gradsim.queries.method import MadeQueries, QueryContext, query_frame, rewrite
from gradsim.study.settings import Generate
from gradsim.text_generation import local


@rewrite.register
def _answer_prompts(settings: Generate, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    assert context.model is not None
    prompts = [dialogue[0] for dialogue in samples["messages"].to_list()]
    tokenizer = context.model.tokenizer
    encoded = [tokenizer(chat.render([each], "", cue=True), add_special_tokens=False)["input_ids"] for each in prompts]
    answers = local.journaled_answers(
        context.model,
        encoded,
        context.journals / f"{context.name}.jsonl",
        max_new_tokens=settings.max_new_tokens,
        force=context.force,
        progress=context.progress,
        say=context.say,
    )
    rows = {
        place: [prompt, {"role": "assistant", "content": answer.text}]
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        if not answer.prompt_too_long
    }
    reasons = [[None, "stop" if answers[place].finished else "length"] for place in rows]
    return MadeQueries(
        query_frame(samples[list(rows)], list(rows.values()), finish_reasons=reasons),
        excluded=dict.fromkeys(
            (name for place, name in enumerate(samples["id"]) if place not in rows),
            "its prompt leaves the model no room to answer",
        ),
        measured={"answers": len(answers), "new_tokens": sum(answer.new_tokens for answer in answers)},
    )
