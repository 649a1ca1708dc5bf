"""Checks in the terminal: one line per check as it finishes, with its finding or with the problem and its fix."""

from collections.abc import Sequence
from typing import TypeVar

from rich.markup import escape
from rich.table import Table

from gradsim_assets.terminal import console
from resources.diagnosis import Check, Finding, Mark, examine

Subject = TypeVar("Subject")

_SIGNS = {Mark.GOOD: "[green]✓[/]", Mark.DOUBTFUL: "[yellow]![/]", Mark.BAD: "[red]✗[/]"}

_TO_FIX = {Mark.DOUBTFUL, Mark.BAD}

_NAME_WIDTH = 11


class Findings:
    """Findings so far, which are already printed.

    Attributes:
        failed: Whether any check failed.
        doubtful: Whether any check gave a warning.
    """

    def __init__(self) -> None:
        self.failed = self.doubtful = False
        self._name = ""
        self._status = console.status("")

    def say(self, text: str) -> None:
        """Show a progress message behind the name of the running check."""
        self._status.update(f"{self._name}: [dim]{escape(text)}[/]")

    def examine(self, checks: Sequence[Check[Subject]], subject: Subject) -> None:
        """Run the checks in order, and print each finding."""
        findings: dict[str, Finding] = {}
        for check in checks:
            self._name = check.name
            self._status.update(check.name)
            with self._status:
                findings[check.name] = finding = examine(check, subject, findings)
            if finding.mark in _SIGNS:
                print_line(_SIGNS[finding.mark], check.name, finding)
        if untested := [name for name, finding in findings.items() if finding.mark is Mark.UNTESTED]:
            print_line("[dim]–[/]", "not tested", Finding(Mark.UNTESTED, ", ".join(untested)))
        marks = {finding.mark for finding in findings.values()}
        self.failed |= Mark.BAD in marks
        self.doubtful |= Mark.DOUBTFUL in marks


def print_line(sign: str, name: str, finding: Finding) -> None:
    """Print a finding; in a terminal, its fix goes on a line of its own."""
    if not console.is_terminal:  # keep each finding on one line, so that files can be searched
        console.print(f"{sign} {name:{_NAME_WIDTH}} {escape(finding.text)}", soft_wrap=True)
        return
    text, _, fix = finding.text.partition("; ") if finding.mark in _TO_FIX else (finding.text, "", "")
    line = Table.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(width=_NAME_WIDTH, no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(sign, name, escape(text))
    if fix:
        line.add_row("", "", f"[bold]→[/] {escape(fix)}")
    console.print(line)
