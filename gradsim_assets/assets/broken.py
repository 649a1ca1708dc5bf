"""Assets in place of the studies that cannot be loaded, so that the web UI shows why."""

import re
from collections.abc import Mapping

import dagster as dg

from gradsim.errors import StudyError
from gradsim_assets.asset_specs import OWNERS


def broken_studies(faults: Mapping[str, StudyError]) -> list[dg.AssetsDefinition]:
    """Return an asset `NAME/study` for each study with an error, by the names of their files."""
    return [_broken_study(number, name, str(error)) for number, (name, error) in enumerate(faults.items())]


def _broken_study(number: int, name: str, error: str) -> dg.AssetsDefinition:
    """Return an asset that shows an error, and that fails with it when it is materialized."""
    step = f"broken_study_{number}"  # a file's name may contain characters that names of steps and groups must not
    shown = dg.AssetOut(
        key=[name, "study"],
        description=f"This study cannot be loaded: {error}. Then reload the code location.",
        group_name=re.sub(r"\W", "_", name, flags=re.ASCII),
        owners=OWNERS,
        kinds={"yaml"},
        metadata={"error": error},
    )

    @dg.multi_asset(name=step, outs={step: shown})
    def study() -> None:
        raise dg.Failure(error, allow_retries=False)

    return study
