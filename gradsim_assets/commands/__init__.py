"""What each `gradsim` command does."""
