"""Dagster resources: storage, the model's device, the place where jobs run, and the paraphrasing API."""
