"""The Dagster code location: assets, checks, jobs and the command line on top of the `gradsim` library."""
