"""Explanations of technical terms, which readers open where a term is used."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Term:
    """Technical term.

    Attributes:
        name: Identifier on the page.
        pattern: Regular expression of its forms in texts, without regard to case.
        explanation: One or two sentences.
    """

    name: str
    pattern: str
    explanation: str


# A pattern takes precedence over those below it.
TERMS = (
    Term(
        "similarity-to-full",
        r"similarity to the full gradient|agrees most closely with the full gradient",
        "Cosine between two lists of numbers: the similarities of all pairs computed from some layers or from a "
        "projection, and those computed from the full gradient. 1 means that they are proportional.",
    ),
    Term(
        "full-gradient",
        r"full gradient",
        "The gradient of the model’s loss on one sample with respect to all compared parameters. Two samples are as "
        "similar as the cosine of their gradients.",
    ),
    Term(
        "answer-length",
        r"answer lengths? (?:alone|only)",
        "A baseline without gradients: it chooses the candidate whose answer is nearest to the query’s in length.",
    ),
    Term(
        "shuffled",
        r"shuffled sources",
        "All similarities are kept, but a random candidate is labelled as the source, a thousand times: what accuracy "
        "to expect from similarities that say nothing.",
    ),
    Term(
        "bm25",
        r"BM25(?: rank only)?",
        "A search engine’s ranking by words that two texts share, weighted by their rarity. It chooses the candidates, "
        "and its first candidate is the choice of BM25.",
    ),
    Term(
        "null-controls",
        r"null controls?",
        "Choices that use no gradients; what they find would be found without the model, too.",
    ),
    Term("chance", r"chance", "Accuracy of choosing a random candidate of each query."),
    Term(
        "accuracy",
        r"single-layer accurac(?:y|ies)|accurac(?:y|ies)",
        "Share of queries whose most similar candidate is their true source. If n candidates share the highest "
        "similarity, the query counts 1/n.",
    ),
    Term(
        "interval",
        r"(?:95 %|95\u00a0%) (?:confidence )?intervals?|confidence intervals?",
        "Range that contains the true value in 95 of 100 such studies with other queries. Wilson’s score interval for "
        "accuracies, otherwise the middle 95 % of a thousand bootstrap resamples of the queries.",
    ),
    Term(
        "significant",
        r"significant(?:ly)?",
        "Unlikely to be an accident of these queries: p is below 0.05, after correction for the number of comparisons.",
    ),
    Term("p", r"p(?=[ \u00a0]=)", "Probability of a difference at least as large if both were equally good."),
    Term(
        "holm",
        r"Holm’s correction",
        "Raises the p-values of several comparisons, so that all significant ones together are wrong in at most 5 % of "
        "studies.",
    ),
    Term(
        "mcnemar",
        r"(?:exact )?McNemar(?:’s)?(?: exact)? tests?",
        "Tests whether the queries that only one of two methods finds are split evenly between the two. p is the "
        "probability of a split at least as uneven.",
    ),
    Term("points", r"points", "Percentage points: the difference between two percentages."),
    Term(
        "forced",
        r"forced",
        "BM25 did not list the true source, so it replaced the last candidate. Gradients can find it, BM25 cannot.",
    ),
    Term(
        "held-out",
        r"held[ -]out",
        "Measured on queries that did not take part in selecting the layers, so that it is not too optimistic.",
    ),
    Term("in-sample", r"in[ -]sample", "Measured on the queries that selected the layers, hence optimistic."),
    Term(
        "greedy",
        r"greedy selections?",
        "Starts without layers, and adds the one that improves the criterion most at each step.",
    ),
    Term(
        "recall",
        r"recall at (?:k|\d+)|recall",
        "Share of queries whose true source is among the k most similar candidates.",
    ),
    Term(
        "mrr",
        r"MRR|(?:mean )?reciprocal ranks?",
        "Mean of 1 divided by the rank of the true source: 1 if it is always first, 0.5 if it is always second.",
    ),
    Term(
        "sjlt",
        r"sjlt(?:_\w+| \d+ nonzeros)?",
        "Sparse Johnson–Lindenstrauss transform: every entry of a gradient is added to few entries of the projected "
        "one, with random signs.",
    ),
    Term(
        "logra",
        r"logra",
        "Projects both factors of a weight’s gradient, its inputs and output gradients, with random signs.",
    ),
    Term("srht", r"srht", "Random signs, a Hadamard transform, and a random choice of its entries."),
    Term("mask", r"mask(?=, \d|\))", "Keeps a random choice of the gradient’s entries."),
    Term("dense", r"rademacher|gaussian|traker", "Multiplies the gradient with a dense matrix of random numbers."),
    Term(
        "projection",
        r"(?:random )?projections?|projected",
        "A random linear map of each layer’s gradient to fewer dimensions, which roughly keeps inner products.",
    ),
    Term("dimensions", r"dimensions", "Numbers that remain of a gradient, over all layers."),
    Term(
        "inner-products",
        r"inner products?",
        "Sum of the products of the entries of two gradients in a layer; the similarity follows from it and from the "
        "norms.",
    ),
    Term("norms", r"squared norms?|norms?", "The squared norm is a gradient’s inner product with itself."),
    Term(
        "autograd",
        r"plain autograd|automatic differentiation",
        "PyTorch’s own gradients, for one sample at a time: slower, and without the formulas that are checked.",
    ),
    Term("tolerance", r"tolerance", "Largest error that rounding in the study’s precision explains."),
    Term("noise", r"rounding noise", "Values that would be zero in exact arithmetic, and say nothing."),
    Term("memorised", r"memorised", "A sample on which the model’s loss is lowest; rounding affects it most."),
    Term(
        "cosine",
        r"cosines?",
        "Inner product divided by both norms: 1 in the same direction, 0 at right angles, -1 in opposite directions.",
    ),
    Term(
        "attention",
        r"attention [qkvo]\b|attention qkv|attention|\d+\.self_attn\.\w+",
        "The part of a block that mixes tokens; q, k, v and o are its query, key, value and output weights.",
    ),
    Term(
        "mlp",
        r"MLP (?:gate\+up|gate|up|down|router)|MLP|\d+\.mlp\.\w+",
        "The part of a block that transforms each token on its own; gate, up and down are its weights.",
    ),
    Term("embedding", r"embed_tokens|embeddings?", "The weights that turn tokens into vectors."),
    Term(
        "block",
        r"transformer blocks?|blocks? \d+|blocks?",
        "One of the model’s repeated units of attention and MLP, numbered from input to output.",
    ),
    Term("component", r"components?", "Layers with the same role in every block, such as attention q or MLP up."),
    Term("true-source", r"true sources?|sources?", "The training sample that a query was rewritten from."),
    Term("candidates", r"candidates?", "The training samples that a query is compared with."),
    Term(
        "setting",
        r"paraphrased|model-generated|word-dropout",
        "A way to make queries. By convention, paraphrased: prompt and answer are reworded; model-generated: the "
        "studied model answers the reworded prompt; word-dropout: words are left out.",
    ),
    Term("queries", r"quer(?:y|ies)", "A training sample that was rewritten, whose source is looked for."),
    Term("layers", r"layers?", "One named weight tensor of the model, such as the query weights of a block."),
    Term(
        "margin",
        r"margins?",
        "Similarity of the source minus that of the best other candidate; negative if the choice is wrong.",
    ),
    Term(
        "divergent",
        r"(?:most )?divergent|divergence",
        "The similarities of the best single layer and of the full gradient disagree.",
    ),
    Term("fingerprint", r"fingerprint", "Digest of all parts of the study file that affect the results."),
    Term("top-k", r"top_k", "Number of candidates of each query."),
    Term("chat-template", r"chat template", "How a conversation becomes the text that the model reads."),
    Term("revision", r"revision", "Version of the model’s files."),
    Term("precision", r"precision", "Number format in which gradients are computed."),
    Term("seed", r"seed", "Start of the random numbers; the same seed gives the same results."),
    Term("commit", r"commit", "Version of the program’s code in its git history."),
)

_FORMS = re.compile(
    r"(?P<before>\(?)(?:"
    + "|".join(rf"(?P<t{place}>(?<!\w)(?:{term.pattern})(?!\w))" for place, term in enumerate(TERMS))
    + r")(?P<after>[),.;:?]*)",
    re.IGNORECASE,
)


class Glossary:
    """Terms that a page uses."""

    def __init__(self) -> None:
        self._used: set[Term] = set()

    def __iter__(self) -> Iterator[Term]:
        """Iterate over the terms used so far, in the order of `TERMS`."""
        return (term for term in TERMS if term in self._used)

    def part(self) -> "Part":
        """Return the explainer of a part of the page, in which each term is explained once."""
        return Part(self._used)


class Part:
    """Part of the page in which each term is explained at its first use."""

    def __init__(self, used: set[Term]) -> None:
        self._used = used
        self._explained: set[Term] = set()

    def __call__(self, text: str) -> Markup:
        """Return a text as HTML in which terms that are new in this part are buttons that open their explanation."""
        return Markup(_FORMS.sub(self._button, str(escape(text))))

    def _button(self, found: re.Match[str]) -> str:
        place = next(place for place in range(len(TERMS)) if found[f"t{place}"] is not None)
        term, words = TERMS[place], found[f"t{place}"]
        if term in self._explained:
            return found[0]
        self._explained.add(term)
        self._used.add(term)
        button = f'<button type="button" class="term" popovertarget="term-{term.name}">{words}</button>'
        if not found["before"] and not found["after"]:
            return button
        # Lines break before and after buttons, but punctuation stays beside its word.
        return f'<span class="unbroken">{found["before"]}{button}{found["after"]}</span>'
