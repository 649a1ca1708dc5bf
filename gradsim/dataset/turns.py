"""The last turn of a sample: the messages that queries rewrite, and that are searched."""

from collections.abc import Mapping, Sequence

from gradsim.study.datasets import MASKED_TOKENS, TEXT, TOKENS, SampleKind

TURN_ROLES = ("user", "assistant", TEXT)


def kind_of(messages: Sequence[Mapping[str, str | None]]) -> SampleKind:
    """Return what a sample is: a conversation, a text as it is, or token ids."""
    role = messages[0]["role"]
    return "text" if role == TEXT else "tokens" if role in (TOKENS, MASKED_TOKENS) else "conversations"


def last_turn(messages: Sequence[Mapping[str, str | None]]) -> dict[str, int]:
    """Return the positions of the last user message, of the last assistant message and of a text, by role."""
    places = {message["role"]: place for place, message in enumerate(messages)}
    return {role: places[role] for role in TURN_ROLES if role in places}
