"""A probe's report, as text for people and as one JSON object for a bug report."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.console import Console

from cockpit_source.probe.run import ProbeReport
from cockpit_source.probe.words import Evidence, Finding
from cockpit_source.version import __version__

_HOW_TO_SEND = "To send it with a bug report: cockpit check --probe --json > probe.json"


def to_json(report: ProbeReport) -> dict[str, Any]:
    """The report as a JSON object; `made_at` is UTC in ISO 8601, `evidence` differs from question to question."""
    return {
        "version": __version__,
        "made_at": report.made_at.isoformat(timespec="seconds"),
        "host": report.host,
        "calls": report.calls,
        "findings": [
            {
                "topic": finding.topic,
                "question": finding.question,
                "verdict": finding.verdict,
                "evidence": finding.evidence,
            }
            for finding in report.findings
        ],
    }


def print_report(report: ProbeReport, console: Console, *, as_json: bool) -> None:
    """Print the report: JSON alone, or a block of aligned lines for every topic."""
    if as_json:
        console.print_json(data=to_json(report))
        return
    for line in _iter_lines(report):
        console.print(line, markup=False, soft_wrap=True)


def _iter_lines(report: ProbeReport) -> Iterator[str]:
    moment = report.made_at.strftime("%Y-%m-%d %H:%M UTC")
    calls = f"{report.calls} calls of at most {report.max_calls}"
    yield f"Probe of {report.host} with cockpit {__version__}, {moment}, {calls}"
    for topic, group in groupby(report.findings, key=lambda finding: finding.topic):
        findings = list(group)
        yield f"\n{topic}"
        yield from _align(findings)
    yield f"\nNo ids, names, domains, secrets or quantities of a customer are above. {_HOW_TO_SEND}"


def _align(findings: list[Finding]) -> Iterator[str]:
    questions = max(len(finding.question) for finding in findings) + 1
    verdicts = max(len(finding.verdict) for finding in findings)
    for finding in findings:
        told = describe_evidence(finding.evidence)
        line = f"  {finding.question + ':':{questions}}  {finding.verdict:{verdicts}}"
        yield f"{line}  ({told})" if told else line.rstrip()


def describe_evidence(evidence: Evidence) -> str:
    """Evidence in a line: "93 rows" as "rows 93", what is empty left out."""
    parts = (
        f"{name.replace('_', ' ')} {_to_text(value)}" for name, value in evidence.items() if value not in ({}, [])
    )
    return ", ".join(parts)


def _to_text(value: Any) -> str:
    if isinstance(value, dict):
        return "[" + ", ".join(f"{name} {_to_text(element)}" for name, element in value.items()) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_to_text, value)) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
