"""The original study's algorithm, written afresh from its description: a gradient at a time, again for each pair.

For every query one backward pass for itself and one for each of its candidates, on weights whose gradients are copied
to the host; a sweep over all queries for the dots of every layer, one for the cosine of the whole gradients, and one
for each random projection (whose arithmetic is left out here, so that a sweep for it costs what flattening costs).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from workload import Sample, Workload


def gradient(model: PreTrainedModel, sample: Sample) -> dict[str, Tensor]:
    """Forward and backward of one sample; the gradients of all layers, on the host."""
    model.zero_grad()
    tokens, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
    model(input_ids=tokens.to(model.device), labels=labels.to(model.device), use_cache=False).loss.backward()
    return {
        name: parameter.grad.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def dot_products(model: PreTrainedModel, workload: Workload) -> list[dict[str, float]]:
    """The sweep for the dots of every layer, and the self dots of queries and candidates on the way."""
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
    """The sweep for the cosines of whole gradients."""
    cosines = []
    for query, originals in _candidates(workload):
        own = _flat(gradient(model, query))
        for original in originals:
            cosines.append(float(torch.nn.functional.cosine_similarity(own, _flat(gradient(model, original)), dim=0)))
    return cosines


def projections(model: PreTrainedModel, workload: Workload) -> None:
    """A sweep for one random projection, its arithmetic left out."""
    for query, originals in _candidates(workload):
        for sample in (query, *originals):
            _flat(gradient(model, sample))


def repetition(workload: Workload) -> float:
    """Tokens of a sweep's passes over tokens of the unique samples.

    Three times for samples of one length with five candidates; 2.90 for LIMA, whose candidates are a little shorter.
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
