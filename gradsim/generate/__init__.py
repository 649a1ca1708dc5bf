"""Answers of the studied model, decoded in batches."""

from gradsim.generate.answers import LONGEST_ANSWER, GeneratedAnswer, generate_answers
from gradsim.generate.sampling import Sampling

__all__ = ["LONGEST_ANSWER", "GeneratedAnswer", "Sampling", "generate_answers"]
