"""Paraphrases by a model from the Hugging Face Hub or a folder, on the machine's own device."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gradsim.queries.chat_prompt import chat_prompt
from gradsim.queries.resuming import resumed_answers
from gradsim.queries.rewriting import Answer, Request, Rewriting
from gradsim.queries.way import Means

if TYPE_CHECKING:
    from gradsim.generate import GeneratedAnswer
    from gradsim.study import ModelConfiguration


class LocalParaphrase(Rewriting):
    """Prompt and answer rewritten by any causal language model, on the device that the studied one runs on.

    A temperature of 0 takes the likeliest token each time. Answers do not depend on what else is asked.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"torch", "huggingface", "parquet"})
    runs_model: ClassVar[bool] = True

    method: Literal["local"] = "local"
    revision: str | None = None
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "bfloat16"
    max_new_tokens: int = Field(2048, ge=1)

    def model_configuration(self, device: str) -> "ModelConfiguration":
        """See `Way.model_configuration`."""
        from gradsim.study import ModelConfiguration  # noqa: PLC0415 - which is made of settings

        return ModelConfiguration(self.model, self.revision, device, self.precision)

    def ask(self, requests: Sequence[Request], means: Means) -> Mapping[Request, Answer]:
        """See `Rewriting.ask`."""
        from gradsim.generate import Sampling  # noqa: PLC0415 - torch takes seconds to load

        assert means.model is not None
        prompts = [self._prompt(request.text, means) for request in requests]
        seeds = [_seed(request) for request in requests]
        sampling = Sampling(self.temperature, seeds) if self.temperature else None
        answers = resumed_answers(prompts, means, max_new_tokens=self.max_new_tokens, sampling=sampling)
        return {
            request: Answer(answer.text, _finish_reason(answer), len(prompt), answer.new_tokens)
            for request, prompt, answer in zip(requests, prompts, answers, strict=True)
        }

    def _prompt(self, text: str, means: Means) -> list[int]:
        assert means.model is not None
        return chat_prompt(self.system_prompt, text, means.model.tokenizer)


def _finish_reason(answer: "GeneratedAnswer") -> str:
    if answer.prompt_too_long:
        return "prompt_too_long"
    return "stop" if answer.finished else "length"


def _seed(request: Request) -> int:
    """Each text's own, so that no two draw alike."""
    digest = hashlib.sha256(f"{request.seed} {request.text}".encode()).digest()
    return int.from_bytes(digest[:7])
