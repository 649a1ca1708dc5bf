"""Measure the floor: plain batched forward and backward passes with gradients of weights, the cost of one epoch."""

import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from workload import MASKED, Sample

# Candidate batch sizes in tokens, including padding; 1 runs each sample alone.
BATCH_TOKENS = (1, 1024, 2048, 4096)


def run(model: PreTrainedModel, samples: Sequence[Sample], batch_tokens: int) -> None:
    """Run all samples forward and backward, in batches of similar length padded on the right."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for batch in batches(samples, batch_tokens):
        length = max(len(sample.input_ids) for sample in batch)
        tokens = torch.zeros(len(batch), length, dtype=torch.long)
        labels = torch.full((len(batch), length), MASKED)
        for row, sample in enumerate(batch):
            tokens[row, : len(sample.input_ids)] = torch.tensor(sample.input_ids)
            labels[row, : len(sample.labels)] = torch.tensor(sample.labels)
        model.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=labels, use_cache=False).loss.backward()
    model.zero_grad(set_to_none=True)


def batches(samples: Sequence[Sample], batch_tokens: int) -> list[list[Sample]]:
    """Return samples sorted by length, in batches as large as the number of tokens allows."""
    made: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: len(sample.input_ids)):
        if made and (len(made[-1]) + 1) * len(sample.input_ids) <= batch_tokens:
            made[-1].append(sample)
        else:
            made.append([sample])
    return made


def fastest_batch_tokens(model: PreTrainedModel, samples: Sequence[Sample]) -> int:
    """Return the fastest of `BATCH_TOKENS` on this machine, from one run each after a warm-up."""
    run(model, samples[:1], 1)
    seconds = {}
    for tokens in BATCH_TOKENS:
        start = time.perf_counter()
        run(model, samples, tokens)
        seconds[tokens] = time.perf_counter() - start
    return min(seconds, key=lambda tokens: seconds[tokens])
