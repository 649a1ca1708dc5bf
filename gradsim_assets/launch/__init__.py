"""Runs from the command line: the Dagster instance, the selection of targets, and progress display."""
