"""Short representations of objects, for the prompt and for Jupyter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Summary:
    """What is worth knowing about an object.

    Attributes:
        title: What the object is.
        facts: Texts by label.
    """

    title: str
    facts: Mapping[str, str]

    def text(self) -> str:
        """Return the title, and a line for each fact."""
        width = max(map(len, self.facts), default=0)
        return "\n".join([self.title, *(f"  {label:{width}}  {fact}" for label, fact in self.facts.items())])

    def html(self) -> str:
        """Return the title and a table of the facts as HTML; whatever they contain is shown as text."""
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(label)}</th><td style="text-align:left">{escape(fact)}</td></tr>'
            for label, fact in self.facts.items()
        )
        return f"<div><b>{escape(self.title)}</b><table>{rows}</table></div>"


class Summarized(ABC):
    """Object that is represented by its summary. A dataclass needs `repr=False`."""

    @abstractmethod
    def _summary(self) -> Summary:
        """Return the summary."""

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()
