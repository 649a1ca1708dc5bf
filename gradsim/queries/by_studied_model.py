"""Answers of the studied model to the rewritten prompts of another setting."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from gradsim.queries.resuming import resumed_answers
from gradsim.queries.way import MadeQueries, Means, Way, rewritten


class Generate(Way):
    """The prompts of another setting, answered greedily by the studied model."""

    kinds: ClassVar[frozenset[str]] = frozenset({"torch", "huggingface", "parquet"})
    runs_model: ClassVar[bool] = True
    studies_model: ClassVar[bool] = True
    # A prompt's faults are those of the setting that it comes from.
    faults: ClassVar[Mapping[str, Collection[str]]] = {"user": (), "assistant": ("empty", "truncated", "refused")}

    method: Literal["generate"] = "generate"
    prompts: str = "paraphrased"
    max_new_tokens: int | None = Field(None, ge=1, description="None: up to the context")

    @property
    def source(self) -> str:
        """See `Way.source`."""
        return self.prompts

    def rewrite(self, samples: pl.DataFrame, means: Means) -> MadeQueries:
        """See `Way.rewrite`."""
        from gradsim.chat import render  # noqa: PLC0415 - torch takes seconds to load

        assert means.model is not None
        prompts = [dialogue[0] for dialogue in samples["messages"].to_list()]
        encode = means.model.tokenizer
        asked = [encode(render([prompt], "", cue=True), add_special_tokens=False)["input_ids"] for prompt in prompts]
        answers = resumed_answers(asked, means, max_new_tokens=self.max_new_tokens)
        rows = {
            place: [prompt, {"role": "assistant", "content": answer.text}]
            for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
            if not answer.prompt_too_long
        }
        reasons = [[None, "stop" if answers[place].finished else "length"] for place in rows]
        frame = rewritten(samples[list(rows)], list(rows.values()), finish_reasons=reasons)
        return MadeQueries(
            frame,
            excluded=dict.fromkeys(
                (name for place, name in enumerate(samples["id"]) if place not in rows),
                "its prompt leaves the model no room to answer",
            ),
            measured={"answers": len(answers), "new_tokens": sum(answer.new_tokens for answer in answers)},
        )
