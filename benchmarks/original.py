"""The original study's algorithm, reimplemented from its description: one gradient at a time, repeated for each pair.

Every query takes one backward pass for itself and one for each candidate, and the gradients of weights are copied to
the host. There is one sweep over all queries for the dots of every layer, one for the cosines of whole gradients, and
one for each random projection. The arithmetic of projections is omitted here; only flattening is measured.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from workload import Sample, Workload


def gradient(model: PreTrainedModel, sample: Sample) -> dict[str, Tensor]:
    """Run one sample forward and backward, and return the gradients of all layers on the host."""
    model.zero_grad()
    tokens, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
    model(input_ids=tokens.to(model.device), labels=labels.to(model.device), use_cache=False).loss.backward()
    return {
        name: parameter.grad.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def dot_products(model: PreTrainedModel, workload: Workload) -> list[dict[str, float]]:
    """Run the sweep for the dots of every layer, including self dots of queries and candidates."""
    dots = []
    for query, originals in _candidates(workload):
        own = gradient(model, query)
        _dots(own, own)
        for original in originals:
            other = gradient(model, original)
            dots.append(_dots(own, other))
            _dots(other, other)
    return dots


def similarities(model: PreTrainedModel, workload: Workload) -> list[float]:
    """Run the sweep for the cosines of whole gradients."""
    cosines = []
    for query, originals in _candidates(workload):
        own = _flat(gradient(model, query))
        for original in originals:
            cosines.append(float(torch.nn.functional.cosine_similarity(own, _flat(gradient(model, original)), dim=0)))
    return cosines


def projections(model: PreTrainedModel, workload: Workload) -> None:
    """Run the sweep for one random projection, without its arithmetic."""
    for query, originals in _candidates(workload):
        for sample in (query, *originals):
            _flat(gradient(model, sample))


def repetition(workload: Workload) -> float:
    """Return the tokens of a sweep's passes divided by the tokens of the unique samples.

    The value is 3 for samples of equal length with five candidates, and 2.90 for LIMA, because its candidates are
    slightly shorter.
    """
    run = sum(len(sample.input_ids) for query, originals in _candidates(workload) for sample in (query, *originals))
    return run / workload.tokens


def _candidates(workload: Workload) -> list[tuple[Sample, Sequence[Sample]]]:
    return [
        (sample, [workload.originals[original] for query, original in workload.pairs.tolist() if query == number])
        for number, sample in enumerate(workload.queries)
    ]


def _dots(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(torch.dot(a[name].flatten(), b[name].flatten())) for name in a}


def _flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([values.flatten() for values in gradients.values()])
