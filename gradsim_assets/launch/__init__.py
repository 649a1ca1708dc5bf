"""Starting runs from the command line: the Dagster instance, targets, progress."""
