"""Input data of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from gradsim.analysis import LayerDots


@dataclass(frozen=True)
class SettingReport:
    """Results of one setting.

    Attributes:
        setting: Name as in asset keys, such as `model_generated`.
        tables: Analyses by name, and the `baseline_differences`. `accuracy`, `controls`, `decisions` and
            `baseline_differences` are required; the page omits other missing analyses and lists them.
        queries: `id` and `messages` of the queries; None if their texts are unavailable.
        layer_dots: Inner products of all pairs by layer; None if unavailable.
    """

    setting: str
    tables: Mapping[str, pl.DataFrame]
    queries: pl.DataFrame | None = None
    layer_dots: LayerDots | None = None


@dataclass(frozen=True)
class ReportData:
    """Results of a study.

    Attributes:
        study: Name of the study.
        settings: Results of the settings in the study's order, at least one.
        provenance: Values by label in display order (study file, dataset, model, device, precision, code, time).
        precision: Precision of the model as named in the study.
        definition: Text of the study file; may be empty.
        description: Description of the study; may be empty.
        parameters_per_layer: Table `parameters_per_layer`; None if the study has no model.
        selection_transfer: Table `selection_transfer`; None if there is no transfer.
        originals: `id` and `messages` of the training samples; None if their texts are unavailable.
        exclusions: `id` and `reason` of excluded samples, possibly empty; None if exclusions are not recorded.
        truncations: `id` of truncated samples and what is `kept` of them; None if truncations are not recorded.
    """

    study: str
    settings: Sequence[SettingReport]
    provenance: Mapping[str, str]
    precision: str = "float32"
    definition: str = ""
    description: str = ""
    parameters_per_layer: pl.DataFrame | None = None
    selection_transfer: pl.DataFrame | None = None
    originals: pl.DataFrame | None = None
    exclusions: pl.DataFrame | None = None
    truncations: pl.DataFrame | None = None
