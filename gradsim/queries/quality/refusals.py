"""Texts in which a model refuses to rewrite, or asks for the text to rewrite."""

import re

from gradsim.queries.quality.rewrite import Rewrite
from gradsim.queries.quality.words import folded

# Maximum number of characters of a text's beginning.
_BEGINNING = 160

_CANNOT = (
    r"(?:can ?not|can't|could not|couldn't|won't|will not|am unable|'m unable|am not able|'m not able"
    r"|must (?:\w+ )?decline)"
    r"(?: be able)?(?: to)?"
)
_THIS_REQUEST = r"(?:that|this|your|such an?|the) (?:request|task|prompt|topic|instruction|content|text|message)s?"
_REWRITING = r"(?:rewrit|rewrote|rephras|reword|paraphras)\w*"
_OUR_TASK = (
    rf"(?:(?:assist|help|aid)(?: you)? (?:with|in) (?:that|this|your|{_REWRITING}|creating|generating)"
    rf"|(?:(?:fulfill?|comply with|process|complete|accommodate|engage (?:with|in|on)) )?{_THIS_REQUEST}"
    rf"|(?:provide|create|generate|produce|write|discuss)(?: an?| any)?"
    rf" (?:{_REWRITING}|explicit|sexual|harmful|hateful|offensive|violent|inappropriate|illegal)"
    r"|(?:provide|offer)(?: you with)?(?: any)? (?:assistance|guidance|information|instructions|support)\b"
    rf"|{_REWRITING})"
)
_FORMS = (
    r"(?:(?:i'm|i am|we're|we are|i|we|my) )?(?:(?:so|very|really|truly) )?(?:sorry|apologies|apologi[sz]e)\b"
    rf"[^!?\n]{{0,40}}\b(?:(?:i|we) ?{_CANNOT}|as an ai)\b",
    rf"(?:(?:unfortunately|regrettably),? )?i ?{_CANNOT} {_OUR_TASK}",
    r"i(?:'m not| am not| don't feel| do not feel) comfortable"
    r" (?:assisting|creating|generating|helping|paraphrasing|providing|rephrasing|rewriting|writing)\b",
    r"(?:i'm|i am) (?:just |only )?an? (?:ai|language model)\b[^.!?\n]{0,60}(?:can ?not|can't|unable|not able)",
    r"as an? (?:ai|(?:large )?language model)\b",
    r"(?:it (?:seems|looks like|appears)|i notice)\b[^.!?\n]{0,30}\byou (?:have not|haven't|did not|didn't)"
    r" (?:provide|include|share|paste)",
    r"(?:(?:sure|of course|certainly)\W+)?(?:please )?(?:provide|share|send|paste)(?: me)?(?: with)? the(?: full)?"
    rf" (?:text|content|passage|message|sentence)s?(?: that| which)? you(?:'d| would)?[^.!?\n]{{0,30}} {_REWRITING}",
    # German, French, Spanish, Portuguese, Italian, Dutch, Russian, Chinese, Japanese, Korean
    r"(?:es )?tut mir (?:sehr )?leid, (?:aber )?(?:ich|das|dabei)\b[^.!?\n]{0,40}\bnicht",
    r"(?:je suis )?(?:vraiment )?désolée?, (?:mais )?je ne (?:peux|puis)\b",
    r"lo (?:siento|lamento)(?: mucho)?, (?:pero )?no (?:puedo|me es posible)\b",
    r"(?:desculpe|sinto muito|lamento)(?: muito)?, (?:mas )?(?:eu )?não posso\b",
    r"mi dispiace, (?:ma )?non posso\b",
    r"(?:het )?spijt me, (?:maar )?(?:ik|dat) kan\b",
    r"(?:извините|простите|к сожалению),? (?:но )?я не могу\b",
    r"(?:很|非常)?(?:抱歉|遗憾|对不起)[,，]?\s?(?:但|但是)?我?(?:无法|不能|没办法)",
    r"申し訳(?:ありません|ございません)",
    r"죄송(?:합니다|하지만)",
)
_REFUSAL = re.compile("|".join(f"(?:{form})" for form in _FORMS))
_APOLOGY = re.compile(
    r"\b(?:sorry|apolog\w+|unfortunately|regret\w*|an ai|language model)\b"
    r"|leid\b|désolé|lo siento|lamento|desculpe|sinto muito|dispiace|spijt|извините|простите|к сожалению"
    r"|抱歉|遗憾|对不起|申し訳|죄송"
)


def is_refused(rewrite: Rewrite) -> bool:
    """Return whether the text begins like a refusal and the original does not.

    Texts about refusals begin like that too: a letter that declines an invitation, a chatbot that explains its limits.
    The text is therefore accepted if the original begins with any kind of apology.
    """
    if not _REFUSAL.match(_beginning(rewrite.text)):
        return False
    original = _beginning(rewrite.original)
    return not (_REFUSAL.match(original) or _APOLOGY.search(original))


def _beginning(text: str) -> str:
    """Return the first characters, folded, with single spaces and without leading quotation marks or markup."""
    return " ".join(folded(text.strip()[: 4 * _BEGINNING]).split()).lstrip("\"'“”„«»*_#>- ")[:_BEGINNING]
