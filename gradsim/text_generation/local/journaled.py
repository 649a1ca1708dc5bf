"""Answers of a local model, journaled one by one so that a restarted job resumes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradsim.models import RunningModel
from gradsim.text_generation.journal import open_journal
from gradsim.text_generation.local.answers import GeneratedAnswer, generate_answers
from gradsim.text_generation.local.sampling import Sampling


def journaled_answers(
    running: RunningModel,
    prompts: Sequence[Sequence[int]],
    journal_path: Path,
    *,
    max_new_tokens: int | None,
    sampling: Sampling | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[GeneratedAnswer]:
    """Return the model's answers to prompts; journaled answers are not generated again.

    Args:
        running: the model and its tokenizer.
        prompts: token ids.
        journal_path: the journal's file.
        max_new_tokens: maximum length of an answer in tokens; None: up to the context length.
        sampling: None: greedy decoding.
        force: ignore journaled answers.
        progress: called with the number of answers and the total.
        say: receives a line for the user.

    Raises:
        GradsimError: the model cannot be loaded, or the journal cannot be written.
    """
    # The location of the model's files does not affect its answers; a revision can contain several GGUF files.
    configuration = running.configuration
    model = [running.revision, configuration.precision, configuration.attention]
    model += [each for each in (configuration.gguf, configuration.quantization) if each]
    how = [model, max_new_tokens, sampling.temperature if sampling else 0]
    keys = [
        _digest([*how, sampling.seeds[place] if sampling else None, list(prompt)])
        for place, prompt in enumerate(prompts)
    ]
    with open_journal(journal_path, say) as journal:
        known = {} if force else dict(journal.entries)
        waiting = [place for place, key in enumerate(keys) if key not in known]
        before = len(prompts) - len(waiting)

        def keep(place: int, answer: GeneratedAnswer) -> None:
            journal.append(keys[waiting[place]], answer._asdict())

        if waiting:
            progress(before, len(prompts))  # the model may take minutes to load and to complete its first answers
            generate_answers(
                running.model,
                running.tokenizer,
                [prompts[place] for place in waiting],
                max_new_tokens=max_new_tokens,
                sampling=Sampling(sampling.temperature, [sampling.seeds[place] for place in waiting])
                if sampling
                else None,
                progress=lambda done, _: progress(before + done, len(prompts)),
                on_answer=keep,
            )
        return [GeneratedAnswer(**journal.entries[key]) for key in keys]


def _digest(request: Any) -> str:
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]
