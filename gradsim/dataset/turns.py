"""The last turn of a conversation: the messages that queries rewrite, and that are searched."""

from collections.abc import Mapping, Sequence

TURN_ROLES = ("user", "assistant")


def last_turn(messages: Sequence[Mapping[str, str | None]]) -> dict[str, int]:
    """Return the positions of the last user message and of the last assistant message, by role."""
    places = {message["role"]: place for place, message in enumerate(messages)}
    return {role: places[role] for role in TURN_ROLES if role in places}
