"""A tokenizer's own chat template: a conversation as text, and the characters that the loss covers."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from gradsim.errors import ModelError, SampleError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gradsim.study import LossOn

Messages = Sequence[Mapping[str, str]]

_PROBE = "gradsim"

SECONDS_TO_RENDER = 10.0
"""Time limit for rendering one conversation."""

LONGEST_TEXT = 50_000_000
"""Maximum length of a rendered conversation, in characters."""


class Span(NamedTuple):
    """Range of characters.

    Attributes:
        start: First character.
        end: Character after the last one.
    """

    start: int
    end: int


def render_template(messages: Messages, tokenizer: "PreTrainedTokenizerBase", *, cue: bool) -> str:
    """Return messages as text in the tokenizer's chat template.

    Args:
        messages: Messages with role and content.
        tokenizer: Tokenizer with a chat template.
        cue: Whether to append the generation prompt (`add_generation_prompt`).

    Raises:
        ModelError: The tokenizer has no chat template.
        SampleError: The template rejects the messages, for example because of a role, or exceeds a limit.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path} has no chat template; set `chat.template` in the study file to tulu "
            "or to a .jinja file"
        )
    try:
        with _time_limit(SECONDS_TO_RENDER):
            text = tokenizer.apply_chat_template(list(map(dict, messages)), tokenize=False, add_generation_prompt=cue)
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"it makes {len(text):,} characters of it")
        return str(text)
    except Exception as error:  # a template is a program of its own
        raise SampleError(f"cannot be rendered by the chat template ({error}); fix or remove it") from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after some seconds. Only the main thread can be interrupted; others run without limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"it takes more than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)


def loss_spans(messages: Messages, tokenizer: "PreTrainedTokenizerBase", text: str, loss_on: "LossOn") -> list[Span]:
    """Return the characters of a rendered conversation that the loss covers.

    An answer begins after the generation prompt and includes the text that ends its turn, as in TRL's completion mask.

    Args:
        messages: The conversation.
        tokenizer: Tokenizer with a chat template.
        text: The conversation as rendered by `render_template`.
        loss_on: Messages that the loss covers.

    Raises:
        SampleError: The last message is no answer, or the template changes an answer beyond recognition.
    """
    if loss_on == "everything":
        return [Span(_end_of_default_system_prompt(messages, tokenizer, text), len(text))]
    answers = [place for place, message in enumerate(messages) if message.get("role") == "assistant"]
    if not answers or answers[-1] != len(messages) - 1:
        raise SampleError("does not end with an answer; make the assistant's answer the last message")
    chosen = answers if loss_on == "all_answers" else answers[-1:]
    return list(_answer_spans(messages, tokenizer, text, chosen))


def _answer_spans(
    messages: Messages, tokenizer: "PreTrainedTokenizerBase", text: str, places: Sequence[int]
) -> Iterator[Span]:
    for place in places:
        prompt = render_template(messages[:place], tokenizer, cue=True) if place else ""
        if text.startswith(prompt):
            start = len(prompt)
        else:  # the generation prompt is not part of the conversation, for example because it starts a thought
            before = render_template(messages[:place], tokenizer, cue=False)
            start = _find_content(messages, place, text, _shared_start(before, text)).start
        yield Span(start, _end_of_answer(messages, tokenizer, text, place, start))


def _end_of_answer(messages: Messages, tokenizer: "PreTrainedTokenizerBase", text: str, place: int, start: int) -> int:
    if place == len(messages) - 1:
        return len(text)
    through = render_template(messages[: place + 1], tokenizer, cue=False)
    if text.startswith(through):
        return len(through)
    # A template can treat the last answer in another way than earlier ones, for example keep its thoughts.
    content = _find_content(messages, place, text, start)
    through_end = through.rpartition(text[content.start : content.end])[2]
    return content.end + _shared_start(through_end, text[content.end :])


def _find_content(messages: Messages, place: int, text: str, start: int) -> Span:
    """Return where a message's content stands in a rendered conversation, at or after a character."""
    content = messages[place]["content"].strip()
    found = text.find(content, start)
    if found < 0:
        raise SampleError(f"has an answer in message {place + 1} that the chat template changes; fix or remove it")
    return Span(found, found + len(content))


def _end_of_default_system_prompt(messages: Messages, tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    """Return where the first message's content starts if the template adds a system prompt by itself, else 0."""
    if messages[0].get("role") == "system":
        return 0
    try:
        probed = render_template([{"role": "system", "content": _PROBE}, *messages], tokenizer, cue=False)
    except SampleError:
        return 0  # the template supports no system prompt
    same_start = _shared_start(text, probed)
    same_end = _shared_start(text[::-1], probed[::-1])
    if same_start + same_end >= len(text):
        return 0
    return max(0, text.find(messages[0]["content"].strip(), same_start))


def _shared_start(first: str, second: str) -> int:
    """Return the number of characters that both texts start with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
