"""What was judged, as a JSON record, a page and a table: STORE/verdicts/3.json and 3.html."""

import collections
import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

from jaxml import files, text
from jaxml.reports import rundir
from jaxml.serving.gate import Check, Verdict, shown

__all__ = ["Publication", "write"]


@dataclasses.dataclass(frozen=True)
class Publication:
    """An attempt to publish a bundle.

    Attributes:
        number: of the verdict; None if the bundle was in use already.
        time: in UTC, ISO 8601.
        run: directory of the run.
        model: name of the model.
        digest: of the bundle.
        against: the version that was in use.
        version: of the bundle in the store; None if it is refused.
        gate: whether the model is good enough.
        trial: whether it works in a server; None if the gate refused it.
    """

    number: int | None
    time: str
    run: str
    model: str
    digest: str
    against: int | None
    version: int | None
    gate: Verdict
    trial: Verdict | None

    @property
    def passed(self) -> bool:
        """Whether the bundle is in use now."""
        return self.version is not None

    @property
    def reasons(self) -> list[str]:
        """A line for each check that failed."""
        checks = (*self.gate.checks, *(self.trial.checks if self.trial else ()))
        return [str(each).splitlines()[0] for each in checks if each.outcome == "failed"]

    def table(self) -> str:
        """Returns the checks as a text of 80 columns; those that were skipped are counted."""
        rows = [
            (each.name, each.value, each.against, each.wanted, each.outcome)
            for each in self.gate.checks
            if each.outcome != "skipped"
        ]
        whole = text.table(("check", "candidate", "other", "wanted", "outcome"), rows)
        skipped = [each.note for each in self.gate.checks if each.outcome == "skipped"]
        for note, number in collections.Counter(skipped).items():
            whole += f"\nskipped: {number}, because {note}"
        if self.trial is not None:
            tried = [
                (each.name, each.seconds, each.wanted, each.outcome) for each in self.trial.checks
            ]
            whole += "\n\n" + text.table(("server", "seconds", "wanted", "outcome"), tried)
        return whole


def next_number(folder: Path) -> int:
    """Returns the number of the next verdict."""
    return 1 + max((int(p.stem) for p in folder.glob("*.json") if p.stem.isdecimal()), default=0)


def write(folder: Path, publication: Publication) -> None:
    """Writes the record and the page of an attempt."""
    files.write_json(folder / f"{publication.number}.json", rundir.plain(publication))
    files.write_text(folder / f"{publication.number}.html", page(publication))


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem;
  color: #1b1f24; background: #fff }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.1rem; margin-top: 2rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem }
dt { color: #59636e } dd { margin: 0; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-bottom: 1px solid #d1d9e0 }
th { color: #59636e; font-weight: 600 }
.number { text-align: right; white-space: nowrap; padding-right: 1.5rem }
.passed { color: #1a7f37 } .failed { color: #b42318; font-weight: 600 } .skipped { color: #59636e }
small { display: block; font-weight: 400; color: #59636e; overflow-wrap: anywhere; white-space: pre-wrap }
@media (max-width: 40rem) {
  thead { display: none } tr { display: block; padding: .5rem 0; border-bottom: 1px solid #d1d9e0 }
  td, td.number { display: block; border: 0; padding: 0; text-align: left } td:empty { display: none }
  td:first-child { font-weight: 600 }
  td[data-label]::before { content: attr(data-label) " "; color: #59636e }
}
"""


def page(publication: Publication) -> str:
    """Returns an attempt as a page of HTML that needs nothing else."""
    outcome = "is refused" if publication.version is None else f"is version {publication.version}"
    title = f"{publication.model} {outcome}"
    against = publication.against
    facts = {
        "verdict": publication.number,
        "time": publication.time,
        "run": publication.run,
        "bundle": publication.digest,
        "in use before": "none" if against is None else f"version {against}",
    }
    described = "".join(f"<dt>{_text(name)}</dt><dd>{_text(v)}</dd>" for name, v in facts.items())
    parts = [f"<h1>{_text(title)}</h1><dl>{described}</dl>"]
    parts.append("<h2>Is it good enough?</h2>" + _gate(publication.gate.checks))
    if publication.trial is None:
        parts.append("<h2>Does it work in a server?</h2><p>It was not tried.</p>")
    else:
        parts.append("<h2>Does it work in a server?</h2>" + _trial(publication.trial.checks))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _gate(checks: Sequence[Check]) -> str:
    rows = [
        (
            each,
            [
                _number("candidate", each.value),
                _number("other", each.against),
                _number("difference", *(each.interval or ())),
                _cell("wanted", each.wanted),
            ],
        )
        for each in checks
    ]
    return _table(("check", "candidate", "other", "difference", "wanted", "outcome"), rows)


def _trial(checks: Sequence[Check]) -> str:
    rows = [
        (each, [_number("seconds", each.seconds), _cell("wanted", each.wanted)]) for each in checks
    ]
    return _table(("check", "seconds", "wanted", "outcome"), rows)


def _table(columns: Sequence[str], rows: Sequence[tuple[Check, list[str]]]) -> str:
    heads = "".join(
        f'<th class="{"number" if each in _NUMBERS else ""}">{each}</th>' for each in columns
    )
    lines = []
    for check, cells in rows:
        note = f"<small>{_text(check.note)}</small>" if check.note else ""
        name = f"<td>{_text(check.name)}{note}</td>"
        outcome = f'<td class="{check.outcome}">{check.outcome}</td>'
        lines.append(f"<tr>{name}{''.join(cells)}{outcome}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


_NUMBERS = ("candidate", "other", "difference", "seconds")


def _number(label: str, *values: float | None) -> str:
    texts = " to ".join(shown(each) for each in values if each is not None)
    return _cell(label, texts, "number")


def _cell(label: str, value: str, kind: str = "") -> str:
    return f'<td class="{kind}" data-label="{label}">{_text(value)}</td>' if value else "<td></td>"


def _text(value: object) -> str:
    return html.escape(str(value))
