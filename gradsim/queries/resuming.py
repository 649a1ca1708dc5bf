"""Answers of a model that runs here, which are kept as they come: a job that is started again goes on."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradsim.journal import open_journal
from gradsim.queries.way import Means

if TYPE_CHECKING:
    from gradsim.generate import GeneratedAnswer, Sampling


def resumed_answers(
    prompts: Sequence[Sequence[int]], means: Means, *, max_new_tokens: int | None, sampling: "Sampling | None" = None
) -> list["GeneratedAnswer"]:
    """The model's answers to prompts; those that its journal holds are not generated again.

    Args:
        prompts: token ids.
        means: with a model.
        max_new_tokens: of each answer; None: up to the context.
        sampling: None: the likeliest token each time.

    Raises:
        GradsimError: the model cannot be loaded, or the journal cannot be written.
    """
    from gradsim.generate import GeneratedAnswer, Sampling, generate_answers  # noqa: PLC0415 - torch takes its time

    running = means.model
    assert running is not None
    how = [_model_identity(means), max_new_tokens, sampling.temperature if sampling else 0]
    keys = [
        _digest([*how, sampling.seeds[place] if sampling else None, list(prompt)])
        for place, prompt in enumerate(prompts)
    ]
    with open_journal(means.journals / f"{means.name}.jsonl", means.say) as journal:
        known = {} if means.force else dict(journal.entries)
        waiting = [place for place, key in enumerate(keys) if key not in known]
        before = len(prompts) - len(waiting)

        def keep(place: int, answer: GeneratedAnswer) -> None:
            journal.append(keys[waiting[place]], answer._asdict())

        if waiting:
            generate_answers(
                running.model,
                running.tokenizer,
                [prompts[place] for place in waiting],
                max_new_tokens=max_new_tokens,
                sampling=Sampling(sampling.temperature, [sampling.seeds[place] for place in waiting])
                if sampling
                else None,
                progress=lambda done, _: means.progress(before + done, len(prompts)),
                on_answer=keep,
            )
        return [GeneratedAnswer(**journal.entries[key]) for key in keys]


def _model_identity(means: Means) -> list[Any]:
    """The same wherever the model's files lie."""
    assert means.model is not None
    configuration = means.model.configuration
    return [means.model.revision, configuration.precision, configuration.attention]


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
