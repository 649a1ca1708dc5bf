"""The Dagster code location: assets, checks, jobs and the command line around the science in `gradsim`."""

import warnings

import dagster as dg

# Backfill policies and partitioned asset checks are what this project wants of Dagster, and its version is pinned.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
