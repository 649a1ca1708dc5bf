"""What a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis import LayerDots


@dataclass(frozen=True)
class SettingReport:
    """What is known of one setting.

    Attributes:
        setting: as in asset keys, `model_generated`.
        tables: analysis -> its table. `accuracy`, `controls` and `decisions` must be there; what else is absent is left
            out of the page and named there.
        queries: `id`, `messages` of the queries; None if their texts are not at hand.
        layer_dots: of all pairs; None if dots by layer are not at hand.
    """

    setting: str
    tables: Mapping[str, pl.DataFrame]
    queries: pl.DataFrame | None = None
    layer_dots: LayerDots | None = None


@dataclass(frozen=True)
class ReportData:
    """A study's results.

    Attributes:
        study: its name.
        settings: at least one, in the study's order.
        provenance: what to say about how the numbers came about, label -> value, in the order to show
            (fingerprint, model, revision, device, precision, code version, when).
        precision: that the model ran in, as the study names it.
        description: what the study says of itself; empty if it says nothing.
        parameters_per_layer: the table of that name; None if the study has no model.
        selection_transfer: the table of that name; None if nothing was carried over.
        originals: `id`, `messages` of the training samples; None if their texts are not at hand.
        exclusions: `id`, `reason` of samples left out, empty if none was; None: it is not recorded.
    """

    study: str
    settings: Sequence[SettingReport]
    provenance: Mapping[str, str]
    precision: str = "float32"
    description: str = ""
    parameters_per_layer: pl.DataFrame | None = None
    selection_transfer: pl.DataFrame | None = None
    originals: pl.DataFrame | None = None
    exclusions: pl.DataFrame | None = None
