"""Prompts in a model's own chat format."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from gradsim.chat import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_prompt(system_prompt: str, text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the token ids of a prompt with instructions and a text, including the cue for an answer.

    Uses the tokenizer's chat template, with thinking disabled, or the tulu format if it has none. If the template
    rejects a system message, both parts go into one user message.
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
