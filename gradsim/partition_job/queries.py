"""Queries that a model makes, the studied one or another."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from gradsim.models import RunningModel
from gradsim.partition_job.job import PartitionJob
from gradsim.partition_job.provenance import model_provenance
from gradsim.queries import QueryContext, make_queries
from gradsim.study.settings import QueryMethod
from gradsim.tables import Provenance, Store, TableKey


def compute_queries(
    job: PartitionJob,
    store: Store,
    work: Mapping[str, Sequence[TableKey]],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Make and write the queries of each partition in `work`.

    Returns:
        What it cost.

    Raises:
        GradsimError: whatever a user can mend.
    """
    key = job.only_key
    method = job.study.settings[str(key.setting)]
    running = RunningModel(job.model)
    samples = {partition: _samples(store, method, partition) for partition in work}
    total, done = sum(map(len, samples.values())), 0
    measured: dict[str, Any] = {}
    for partition, wanted in samples.items():
        query_context = QueryContext(
            name=f"{job.study.name}/{key.setting}/{partition}",
            seed=job.study.seed,
            ids=store.ids.categories.to_list(),
            journals=store.journals,
            model=running,
            force=job.force,
            say=partial(print, file=sys.stderr, flush=True),
            progress=partial(_shared_out, progress, done, len(wanted), total),
        )
        made = make_queries(method, wanted, query_context)
        provenance = _provenance(job, store, method, running).model_copy(update={"excluded": dict(made.excluded)})
        store.write(key, made.frame, partition, provenance)
        done += len(wanted)
        measured |= {name: measured.get(name, 0) + value for name, value in made.measured.items()}
    return measured


def _samples(store: Store, method: QueryMethod, partition: str) -> pl.DataFrame:
    """What a partition's queries are made from: ids as texts."""
    if method.source:
        found = store.read(store.lineage.key("queries", method.source), [partition])
    else:
        wanted = store.ids_of(partition)
        samples = store.read(store.lineage.key("samples"))
        found = samples.filter(pl.col("id").cast(pl.String).is_in(wanted))
    return found.with_columns(pl.col("id").cast(pl.String))


def _provenance(job: PartitionJob, store: Store, method: QueryMethod, running: RunningModel) -> Provenance:
    if method.studies_model:
        return model_provenance(job, store, running.device)
    configuration = running.configuration
    return Provenance(
        model=configuration.name,
        revision=running.revision,
        device=running.device,
        precision=configuration.precision,
    )


def _shared_out(progress: Callable[[int, int], None], before: int, own: int, total: int, done: int, of: int) -> None:
    """A partition's progress, in texts or answers, as that of its samples among all."""
    progress(before + own * done // max(of, 1), total)
