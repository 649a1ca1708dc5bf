"""Estimates of what a study would send to an API, and of the cost, before anything is sent."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from gradsim.queries import estimate
from gradsim.study.partitions import select_partitions
from gradsim.study.settings import Paraphrase
from gradsim.tables import State
from gradsim_assets.assets.dataset import load_originals
from gradsim_assets.assets.variants import query_context
from gradsim_assets.commands.session import Session
from gradsim_assets.launch.targets import Launch


def spending(
    session: Session, partitions: Mapping[str, Sequence[str]], originals: pl.DataFrame | None = None
) -> Iterator[str]:
    """Yield one line for each setting with texts to be rewritten by an API.

    Args:
        session: Session of the study.
        partitions: Partitions with queries to make, by setting.
        originals: All originals of the study; None to read the stored table, or else load the dataset.

    Raises:
        GradsimError: The originals cannot be loaded, or the API's address is invalid.
    """
    for name, keys in partitions.items():
        method = session.study.settings[name]
        if isinstance(method, Paraphrase) and keys:
            originals = _originals(session) if originals is None else originals
            wanted = select_partitions(session.study.partitions, keys)
            samples = pl.concat(originals[each.start : each.end] for each in wanted)
            context = query_context(session.store, name, originals)
            limit = "" if method.max_cost is None else f", max_cost ${method.max_cost:.2f}"
            sent = estimate(method, samples, context)
            yield f"{name}: sends {sent}{limit} ({method.model}, {samples.height:,} samples)"


def missing_queries(session: Session) -> dict[str, list[str]]:
    """Return the partitions with missing or stale queries, by setting."""
    store = session.store
    return {
        name: [
            each.key
            for each in session.study.partitions
            if store.state(store.lineage.key("queries", name), each.key) is not State.FRESH
        ]
        for name in session.study.settings
    }


def launched_queries(launches: Sequence[Launch]) -> dict[str, list[str]]:
    """Return the partitions with queries that these launches make, by setting."""
    found: dict[str, list[str]] = {}
    for launch in launches:
        for key in launch.keys:
            if key.name == "queries":
                found.setdefault(str(key.setting), []).extend(launch.partitions)
    return found


def _originals(session: Session) -> pl.DataFrame:
    store = session.store
    key = store.lineage.key("samples")
    if store.state(key) is State.FRESH:
        return store.read(key)
    return load_originals(session.study).frame
