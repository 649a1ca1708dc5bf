"""A text and what to do with it, as a chat model of any family wants to be asked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from gradsim.chat import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_prompt(system_prompt: str, text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Token ids of instructions and a text, with the cue for an answer.

    A model's own chat template is used, without its thinking; one that has no system role gets both in one message. A
    tokenizer without a template gets the tulu one.
    """
    messages = [{"role": "system", "content": system_prompt}, {"role": "user", "content": text}]
    return list(tokenizer(_rendered(messages, tokenizer), add_special_tokens=False, verbose=False)["input_ids"])


def _rendered(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase") -> str:
    if not tokenizer.chat_template:
        return render(messages, "", cue=True)
    try:
        return _templated(messages, tokenizer)
    except TemplateError:
        both = "\n\n".join(message["content"] for message in messages)
        return _templated([{"role": "user", "content": both}], tokenizer)


def _templated(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False)
    )
