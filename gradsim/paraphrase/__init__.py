"""Rewriting through an OpenAI-compatible API: concurrent, within limits and a budget, and resumable."""

from gradsim.paraphrase.costs import Cost
from gradsim.paraphrase.failures import ParaphraseError
from gradsim.paraphrase.paraphraser import Estimate, Paraphraser

__all__ = ["Cost", "Estimate", "ParaphraseError", "Paraphraser"]
