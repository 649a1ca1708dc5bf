"""The code location that Dagster loads."""

from gradsim_assets.build import build_definitions

defs = build_definitions()
