"""The Dagster code location: assets, checks, jobs and the command line around the science in `gradsim`."""
