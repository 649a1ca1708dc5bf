"""Dagster resources: storage, and the place where jobs run with its device."""
