"""The model card's section on the servers through which the merge was checked: whether it is the measured one there."""

from __future__ import annotations

from collections.abc import Iterator

from autolambda.export.provenance import Provenance
from autolambda.statistics.paired import MARGINS
from autolambda.statistics.words import percent_of, tokens_of


def served_section(measurement: Provenance | None) -> Iterator[str]:
    """Yields the lines of the section; none if the merge was never checked on a server."""
    if measurement is None or not measurement.served:
        return
    yield "## Checked where it is served"
    yield ""
    yield f"`autolambda check` asked servers the prompts of the confirmation. {MARGINS}"
    yield ""
    yield "| server | as | date | accuracy | mean tokens | Think ratio | |"
    yield "|---|---|---|---|---|---|---|"
    for each in measurement.served:
        check, measured = each.check, each.measured
        how = f"{check.model}, {check.label}" if check.label else check.model
        tokens = tokens_of(measured.mean_tokens).replace(" tokens", "")
        numbers = f"{percent_of(measured.accuracy)} | {tokens} | {percent_of(measured.think_ratio)}"
        yield f"| {_plain(check.software)} | {_plain(how)} | {check.date} | {numbers} | {each.kept} |"
    yield ""


def _plain(text: str) -> str:
    """Makes a server's text safe for a table cell: no line breaks, no bars, no markup."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return kept.replace("|", "/").replace("<", "(").replace(">", ")").replace("`", "'")[:120]
