"""What a study's settings would send to an API, and what that would cost, before anything is sent."""

from collections.abc import Iterator, Sequence

import polars as pl

from gradsim.queries import Paraphrase
from gradsim.tables import State
from gradsim_assets.assets.dataset import load_originals
from gradsim_assets.session import Session
from resources.paraphraser import ParaphraserResource


def spending(session: Session, settings: Sequence[str], originals: pl.DataFrame | None = None) -> Iterator[str]:
    """A line for each of these settings that an API has still to rewrite texts for.

    Args:
        session: the study's.
        settings: which are looked at.
        originals: all of the study's; None: as stored, or loaded.

    Raises:
        GradsimError: the originals cannot be had, or the API's address is none.
    """
    for name in settings:
        way = session.study.settings[name]
        if isinstance(way, Paraphrase) and (missing := _positions_without_queries(session, name)):
            originals = _originals(session) if originals is None else originals
            paraphraser = ParaphraserResource(base_url=session.environment.openai_base_url)
            means = paraphraser.means(session.store, name, originals)
            estimate = way.estimate(originals[missing], means)
            limit = "" if way.max_cost is None else f", max_cost ${way.max_cost:.2f}"
            yield f"{name}: sends {estimate}{limit} ({way.model}, {len(missing):,} samples)"


def _positions_without_queries(session: Session, setting: str) -> list[int]:
    store = session.store
    key = store.lineage.key("queries", setting)
    partitions = [each for each in session.study.partitions if store.state(key, each.key) is not State.FRESH]
    return [position for partition in partitions for position in range(partition.start, partition.end)]


def _originals(session: Session) -> pl.DataFrame:
    store = session.store
    key = store.lineage.key("samples")
    if store.state(key) is State.FRESH:
        return store.read(key).with_columns(pl.col("id").cast(pl.String))
    return load_originals(session.study)
