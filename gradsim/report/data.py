"""What a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class SettingReport:
    """The analysis tables of one setting, as `gradsim.analysis` makes them.

    Attributes:
        setting: as in asset keys, `model_generated`.
        accuracy: the table of that name, as the following ones.
        controls: null controls.
        best_similarity: of the best candidate and the source.
        decisions: one row a query.
        accuracy_per_layer: None if dots by layer were not computed.
        similarity_to_full_gradient: None if dots by layer were not computed.
        projection_audit: None or empty: nothing was projected.
        gradient_audit: None if no dot was computed again with plain autograd.
        queries: `id`, `messages` of the queries; None if their texts are not at hand.
    """

    setting: str
    accuracy: pl.DataFrame
    controls: pl.DataFrame
    best_similarity: pl.DataFrame
    decisions: pl.DataFrame
    accuracy_per_layer: pl.DataFrame | None = None
    similarity_to_full_gradient: pl.DataFrame | None = None
    projection_audit: pl.DataFrame | None = None
    gradient_audit: pl.DataFrame | None = None
    queries: pl.DataFrame | None = None


@dataclass(frozen=True)
class ReportData:
    """A study's results.

    Attributes:
        study: its name.
        settings: at least one, in the study's order.
        provenance: what to say about how the numbers came about, label -> value, in the order to show
            (fingerprint, model, revision, device, precision, code version, when).
        precision: that the model ran in, as the study names it.
        parameters_per_layer: the table of that name; None if the study has no model.
        originals: `id`, `messages` of the training samples; None if their texts are not at hand.
        exclusions: `id`, `reason` of samples left out; None or empty: nothing was left out.
    """

    study: str
    settings: Sequence[SettingReport]
    provenance: Mapping[str, str]
    precision: str = "float32"
    parameters_per_layer: pl.DataFrame | None = None
    originals: pl.DataFrame | None = None
    exclusions: pl.DataFrame | None = None
