"""The API resource: which OpenAI-compatible server rewrites samples. The key never enters run config or logs."""

from collections.abc import Callable

import dagster as dg
import polars as pl

from gradsim.paraphrase import Paraphraser
from gradsim.study import ParaphraseSetting


class ParaphraserResource(dg.ConfigurableResource[None]):
    """A client of an OpenAI-compatible API; its key is read from `OPENAI_API_KEY` when a request is made.

    Attributes:
        base_url: of the API; None: OpenAI's own.
    """

    base_url: str | None = None

    def paraphrase(
        self, samples: pl.DataFrame, setting: ParaphraseSetting, seed: int, log: Callable[[str], None]
    ) -> pl.DataFrame:
        """Rewrite prompt and answer of each sample as a setting says.

        Raises:
            ParaphraseError: naming the sample whose text could not be had.
        """
        paraphraser = Paraphraser(
            model=setting.model,
            temperature=setting.temperature,
            seed=seed,
            base_url=self.base_url,
            concurrency=setting.concurrency,
        )
        return paraphraser.paraphrase(
            samples, progress=lambda done, total: log(f"paraphrases: {done} of {total} samples")
        )
