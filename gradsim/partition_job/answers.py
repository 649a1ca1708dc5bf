"""Queries of a `generate` setting: the prompts of another setting, answered by the studied model."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import polars as pl

from gradsim.chat import render
from gradsim.generate import greedy_answers
from gradsim.models import context_length, load_model, load_tokenizer, resolve_device
from gradsim.partition_job.job import PartitionJob
from gradsim.partition_job.provenance import model_provenance
from gradsim.samples import SAMPLES_SCHEMA
from gradsim.study import GenerateSetting
from gradsim.tables import Store, TableKey

# A model without a stated context is not left to ramble.
LONGEST_ANSWER = 2048


def compute(
    job: PartitionJob,
    store: Store,
    work: Mapping[str, Sequence[TableKey]],
    progress: Callable[[int, int], None],
) -> dict[str, int]:
    """Generate and write the queries of each partition in `work`.

    Returns:
        What it cost.

    Raises:
        GradsimError: whatever a user can mend.
    """
    setting = job.study.settings[str(job.only_key.setting)]
    assert isinstance(setting, GenerateSetting)
    device = resolve_device(job.model.device)
    model = load_model(job.model)
    tokenizer = load_tokenizer(job.model.name, job.model.revision)
    longest = setting.max_new_tokens or context_length(model.config) or LONGEST_ANSWER
    prompts = {partition: _prompts(store, job, setting, partition) for partition in work}
    total, done, tokens = sum(map(len, prompts.values())), 0, 0
    for partition, samples in prompts.items():
        ids = [
            tokenizer(render([prompt], "", cue=True), add_special_tokens=False)["input_ids"]
            for prompt in samples["messages"].list.first()
        ]
        answers = greedy_answers(
            model, tokenizer, ids, max_new_tokens=longest, progress=partial(_offset, progress, done, total)
        )
        rows = [
            (sample, [prompt, {"role": "assistant", "content": answer.text}])
            for sample, prompt, answer in zip(samples["id"], samples["messages"].list.first(), answers, strict=True)
            if not answer.prompt_too_long
        ]
        kept = {sample for sample, _ in rows}
        excluded = {s: "its prompt leaves the model no room to answer" for s in samples["id"] if s not in kept}
        provenance = model_provenance(job, store, device).model_copy(update={"excluded": excluded})
        store.write(job.only_key, pl.DataFrame(rows, SAMPLES_SCHEMA, orient="row"), partition, provenance)
        done += len(samples)
        tokens += sum(answer.new_tokens for answer in answers)
    return {"answers": done, "new_tokens": tokens}


def _prompts(store: Store, job: PartitionJob, setting: GenerateSetting, partition: str) -> pl.DataFrame:
    return store.read(TableKey(job.study.name, "queries", setting.prompts), [partition])


def _offset(progress: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)
