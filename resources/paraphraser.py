"""The API resource: which OpenAI-compatible server rewrites samples. Neither key nor address enter run config."""

from collections.abc import Callable

import dagster as dg
import polars as pl

from gradsim.environment import read_environment
from gradsim.progress import in_steps
from gradsim.queries import QueryContext
from gradsim.tables import Store


class ParaphraserResource(dg.ConfigurableResource[None]):
    """An OpenAI-compatible API, at `OPENAI_BASE_URL` and with the key `OPENAI_API_KEY`, both read when needed."""

    def query_context(
        self, store: Store, setting: str, originals: pl.DataFrame, log: Callable[[str], None] = lambda line: None
    ) -> QueryContext:
        """Return the context for making a setting's queries without a model on this machine.

        Args:
            store: the study's tables.
            setting: its name.
            originals: all of them.
            log: is told what is about to be spent, and how far it is.
        """
        return QueryContext(
            name=f"{store.study.name}/{setting}",
            seed=store.study.seed,
            ids=originals["id"].to_list(),
            trial=store.study.first_samples is not None,
            journals=store.journals,
            base_url=read_environment().openai_base_url,
            progress=in_steps(lambda done, total: log(f"{setting} paraphrases: {done} of {total} texts")),
            say=log,
        )
