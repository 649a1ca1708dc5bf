"""The Tulu chat template of open-instruct."""

from collections.abc import Mapping, Sequence


def render(messages: Sequence[Mapping[str, str]], end_token: str, *, cue: bool) -> str:
    """Return messages as text in the Tulu template.

    Args:
        messages: Messages with role and content; roles other than system, user and assistant produce no text.
        end_token: Token appended to every answer.
        cue: Whether to append the generation prompt (`add_generation_prompt`).
    """
    last = len(messages) - 1
    parts: list[str] = []
    for position, message in enumerate(messages):
        match message.get("role"):
            case "system" | "user" as role:
                parts.append(f"<|{role}|>\n{message['content']}\n")
            case "assistant":
                line_end = "" if position == last else "\n"
                parts.append(f"<|assistant|>\n{message['content']}{end_token}{line_end}")
    return "".join(parts) + ("<|assistant|>\n" if cue else "")
