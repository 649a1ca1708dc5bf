"""Forward pass of a causal language model: logits, without a cache, with only the keywords that the model accepts."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")

# Output attributes with a cache: of attention models and of state-space models.
_CACHES = ("past_key_values", "cache_params")


class Forward:
    """Callable that runs a model with only those keywords that it accepts.

    A signature with `**kwargs` does not show which keywords a model supports, because wrappers such as PEFT's pass all
    of them on. Such a model receives all keywords, and those that it rejects are not passed again.

    Attributes:
        returns_cache: whether the model has returned a cache despite `use_cache=False`. A block of such a model must
            not run twice in one pass, because the second run would append to the cache.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        parameters = inspect.signature(model.forward).parameters
        self._accepts_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        self._named = set(parameters)
        self._refused: set[str] = set()
        self.returns_cache = False

    def __call__(self, tokens: Tensor, **keywords: Any) -> Tensor:
        """Return the logits of (B, T) tokens: (B, T, V), or only the last `logits_to_keep` positions."""
        given = {name: value for name, value in keywords.items() if self._accepts(name)}
        if self._accepts("use_cache"):
            given["use_cache"] = False
        try:
            output: Any = self._model(input_ids=tokens, **given)
        except TypeError as error:
            refused = _UNEXPECTED.search(str(error))
            if refused is None or refused[1] not in given:
                raise
            self._refused.add(refused[1])
            return self(tokens, **keywords)
        self.returns_cache |= any(getattr(output, name, None) is not None for name in _CACHES)
        logits: Tensor = output.logits
        return logits

    def _accepts(self, name: str) -> bool:
        return name not in self._refused and (self._accepts_any or name in self._named)


@contextmanager
def without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Disable the cache inside the context, in all configurations of the model and its submodules."""
    configurations = {id(each): each for module in model.modules() if (each := getattr(module, "config", None))}
    switched_on = [each for each in configurations.values() if getattr(each, "use_cache", False)]
    try:
        for configuration in switched_on:
            configuration.use_cache = False
        yield
    finally:
        for configuration in switched_on:
            configuration.use_cache = True
