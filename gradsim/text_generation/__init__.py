"""Text generation with an OpenAI-compatible API (`api`) or a local model (`local`)."""
