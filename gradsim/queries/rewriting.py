"""Last prompt and answer of each sample rewritten by a language model, separately, and again if a text is faulty."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from gradsim.dataset.turns import last_turn
from gradsim.queries.generating import generated_answers
from gradsim.queries.method import MadeQueries, QueryContext, query_frame, rewrite
from gradsim.queries.quality import Rewrite, find_faults
from gradsim.study.settings import LocalParaphrase, Paraphrase, Rewriting
from gradsim.text_generation import api, local
from gradsim.text_generation.request import Answer, Request

if TYPE_CHECKING:
    from gradsim.text_generation.api import Estimate, Paraphraser
    from gradsim.text_generation.local import GeneratedAnswer


class _Message(NamedTuple):
    """A message to rewrite, with the positions of its sample and of itself, and the sample's answer."""

    sample: int
    place: int
    role: str
    text: str
    answer: str


@rewrite.register
def _rewrite_by_model(settings: Rewriting, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    messages = _messages(samples)
    rewrites = _rewrites(settings, messages, context)
    dialogues = samples["messages"].to_list()
    seeds: list[list[int | None]] = [[None] * len(each) for each in dialogues]
    finish_reasons: list[list[str | None]] = [[None] * len(each) for each in dialogues]
    for message, (request, answer) in zip(messages, rewrites, strict=True):
        dialogues[message.sample][message.place]["content"] = answer.text
        seeds[message.sample][message.place] = request.seed
        finish_reasons[message.sample][message.place] = answer.finish_reason
    frame = query_frame(samples, dialogues, seeds=seeds, finish_reasons=finish_reasons)
    return MadeQueries(frame, measured=_measured(dict(rewrites).values()), model=settings.model)


@singledispatch
def ask(settings: Rewriting, requests: Sequence[Request], context: QueryContext) -> Mapping[Request, Answer]:
    """Return the model's answers; journaled ones are not requested again.

    Raises:
        GradsimError: a request failed; the other answers are in the journal.
    """
    raise NotImplementedError(f"no model answers for {settings.method!r}: register a function with ask.register")


@ask.register
def _ask_api(settings: Paraphrase, requests: Sequence[Request], context: QueryContext) -> Mapping[Request, Answer]:
    return _paraphraser(settings, context).ask(requests, context.progress, context.say)


@ask.register
def _ask_local_model(
    settings: LocalParaphrase, requests: Sequence[Request], context: QueryContext
) -> Mapping[Request, Answer]:
    assert context.model is not None
    tokenizer = context.model.tokenizer
    prompts = [local.chat_prompt(settings.system_prompt, request.text, tokenizer) for request in requests]
    seeds = [_own_seed(request) for request in requests]
    sampling = local.Sampling(settings.temperature, seeds) if settings.temperature else None
    answers = generated_answers(context, prompts, max_new_tokens=settings.max_new_tokens, sampling=sampling)
    return {
        request: Answer(answer.text, _finish_reason(answer), len(prompt), answer.new_tokens)
        for request, prompt, answer in zip(requests, prompts, answers, strict=True)
    }


def estimate(settings: Paraphrase, samples: pl.DataFrame, context: QueryContext) -> "Estimate":
    """Return what one request for each of the samples' texts would cost; send nothing.

    Raises:
        GradsimError: the address is not valid, or the journal cannot be read.
    """
    requests = [Request(message.text, _seed(settings, context)) for message in _messages(samples)]
    return _paraphraser(settings, context).estimate(list(dict.fromkeys(requests)))


def _paraphraser(settings: Paraphrase, context: QueryContext) -> "Paraphraser":
    return api.Paraphraser(settings, context.journals, base_url=context.base_url, name=context.name)


def _rewrites(settings: Rewriting, messages: Sequence[_Message], context: QueryContext) -> list[tuple[Request, Answer]]:
    """Return each message's last request and answer; a faulty answer is requested again with the next seed."""
    found: dict[int, tuple[Request, Answer]] = {}
    waiting = list(range(len(messages)))
    for attempt in range(settings.quality.attempts):
        requests = {place: Request(messages[place].text, _seed(settings, context) + attempt) for place in waiting}
        answers = ask(settings, list(dict.fromkeys(requests.values())), context)
        found |= {place: (request, answers[request]) for place, request in requests.items()}
        waiting = [place for place in waiting if _is_retried(settings, messages[place], answers[requests[place]])]
        if not waiting:
            break
    return [found[place] for place in range(len(messages))]


def _is_retried(settings: Rewriting, message: _Message, answer: Answer) -> bool:
    quality = settings.quality
    rewritten = Rewrite(message.role, message.text, answer.text, message.answer, answer.finish_reason)
    return quality.retries and quality.to_be_retried(find_faults(rewritten, quality.bounds))


def _seed(settings: Rewriting, context: QueryContext) -> int:
    return context.seed if settings.seed is None else settings.seed


def _own_seed(request: Request) -> int:
    """Return a seed that differs between texts, so that no two are sampled alike."""
    digest = hashlib.sha256(f"{request.seed} {request.text}".encode()).digest()
    return int.from_bytes(digest[:7])


def _finish_reason(answer: "GeneratedAnswer") -> str:
    if answer.prompt_too_long:
        return "prompt_too_long"
    return "stop" if answer.finished else "length"


def _messages(samples: pl.DataFrame) -> list[_Message]:
    return [
        _Message(sample, place, role, dialogue[place]["content"], dialogue[-1]["content"])
        for sample, dialogue in enumerate(samples["messages"].to_list())
        for role, place in last_turn(dialogue).items()
    ]


def _measured(answers: Collection[Answer]) -> dict[str, int]:
    """Return the number of texts and tokens of the answers that are used."""
    return {
        "texts": len(answers),
        "input_tokens": sum(answer.input_tokens or 0 for answer in answers),
        "output_tokens": sum(answer.output_tokens or 0 for answer in answers),
    }
