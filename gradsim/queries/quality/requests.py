"""Detection of requests in English texts and sentences."""

import re

from gradsim.queries.quality.words import folded, without_code

# Commands to a language model. Commands to the reader of a recipe (use, take, mix) are not included.
_TASK = (
    "adapt|analyse|analyze|annotate|brainstorm|build|calculate|categorise|categorize|choose|cite|clarify|"
    "classify|code|come up with|compare|complete|compose|compute|condense|construct|convert|correct|craft|create|"
    "debate|define|deliver|demonstrate|describe|design|detect|determine|develop|devise|discuss|draft|edit|"
    "elaborate|enhance|enumerate|estimate|evaluate|expand|explain|explore|express|extract|fill|fix|formulate|"
    "generate|give|identify|illustrate|imagine|implement|improve|interpret|invent|justify|list|locate|make|"
    "modify|name|narrate|offer|outline|paraphrase|pen|pick|plan|polish|present|pretend|print|produce|proofread|"
    "propose|prove|provide|pull|put|re-write|recast|recognise|recognize|recommend|refine|render|repeat|rephrase|"
    "replace|respond|restate|retell|retrieve|review|revise|reword|rework|rewrite|select|share|shorten|show|"
    "simplify|solve|spot|suggest|sum up|summarise|summarize|suppose|surprise|teach|tell|transform|translate|trim|"
    "turn|walk me|write"
)
_COMMAND = re.compile(rf"(?:(?:and|then|now|next|first|also|to|just|simply|briefly|you|let's) )*(?:{_TASK})\b")
_COMMAND_AFTER_ALL = (
    r"(?:and|then|to|you) (?:compose|describe|draft|explain|paraphrase|rephrase|rewrite|summari[sz]e|translate|write)"
)

_TEXT = r"(?:article|code|list|paragraph|passage|prompt|question|sentence|text)"
_WISHES = (
    r"please|kindly",
    r"(?:can|could|would|will) (?:you|someone|somebody|anyone|anybody|i)|should i|am i|do i",
    r"(?:give|help|show|teach|tell) me|let me know",
    r"i(?:'m| am) (?:just )?(?:asking|confused|curious|interested|looking|searching|trying|unsure|wondering)",
    r"i(?:'d| would) (?:appreciate|be interested|like|love|rather)",
    r"(?:i|we) (?:need|want|wish|wonder)|i(?:'ve| have) (?:got )?to",
    r"any (?:advice|help|ideas?|suggestions?|thoughts|tips?)",
    r"your (?:assignment|challenge|goal|homework|job|mission|task|work)|(?:the|a|this) (?:challenge|prompt|task)",
    r"you(?:'ll| will| are to|'re to)|you(?: are|'re) (?:asked|challenged|expected|given|provided)",
    rf"(?:below|following|given|provided) {_TEXT}|{_TEXT} (?:below|given|provided|that follows)",
)
_WISH = re.compile(rf"\b(?:{'|'.join(_WISHES)}|{_COMMAND_AFTER_ALL})\b")

_QUESTION = re.compile(
    r"(?:(?:and|but|so|then|or|also) )?(?:how|what|what's|why|which|who|who's|whose|whom|where)\b"
)  # with or without a question mark
# Not in a regular expression or URL; some scripts put no space between sentences.
_QUESTION_MARK = re.compile(r"[?؟](?=[\s\"'”)\]*_!?.]|[^\x00-\u024f]|$)")

_SENTENCES = re.compile(r"(?<=[.!?:;。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")
_CLAUSES = re.compile(r"[,;:()\"“”„–—]+|\s-+\s|\.\.+")


def sentences_of(text: str) -> list[str]:
    """Split a text into its non-blank sentences and lines."""
    return [sentence.strip() for sentence in _SENTENCES.split(text) if sentence.strip()]


def asks(text: str) -> bool:
    """Return whether any sentence of a text is a request."""
    return any(is_request(sentence) for sentence in sentences_of(without_code(text)))


def is_request(sentence: str) -> bool:
    """Return whether a sentence is a request: a question in any language, or an English wish or command."""
    return is_open_request(sentence) or _commands(folded(without_code(sentence)))


def is_open_request(sentence: str) -> bool:
    """Return whether a sentence is a request other than a command; answers can contain commands too."""
    plain = folded(without_code(sentence))
    return bool(_QUESTION_MARK.search(plain) or _WISH.search(plain))


def _commands(plain: str) -> bool:
    clauses = [clause.strip(" \t*_#>-•'") for clause in _CLAUSES.split(plain)]
    return bool(_QUESTION.match(clauses[0])) or any(_COMMAND.match(clause) for clause in clauses)
