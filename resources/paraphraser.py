"""The API resource: which OpenAI-compatible server rewrites samples. The key never enters run config or logs."""

from collections.abc import Callable

import dagster as dg
import polars as pl

from gradsim.progress import in_steps
from gradsim.queries import Means
from gradsim.tables import Store


class ParaphraserResource(dg.ConfigurableResource[None]):
    """Where an OpenAI-compatible API is; its key is read from `OPENAI_API_KEY` when a request is made.

    Attributes:
        base_url: of the API; None: OpenAI's own.
    """

    base_url: str | None = None

    def means(
        self, store: Store, setting: str, originals: pl.DataFrame, log: Callable[[str], None] = lambda line: None
    ) -> Means:
        """What a setting's queries are made with where no model runs here.

        Args:
            store: the study's tables.
            setting: its name.
            originals: all of them.
            log: is told what is about to be spent, and how far it is.
        """
        return Means(
            name=f"{store.study.name}/{setting}",
            seed=store.study.seed,
            ids=originals["id"].to_list(),
            trial=store.study.first_samples is not None,
            journals=store.journals,
            base_url=self.base_url,
            progress=in_steps(lambda done, total: log(f"{setting} paraphrases: {done} of {total} texts")),
            say=log,
        )
