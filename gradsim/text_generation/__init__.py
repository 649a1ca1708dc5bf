"""Texts by language models: behind an OpenAI-compatible API (`api`) or on this machine (`local`)."""
