"""Comparing what a document prints with what a run prints."""

from __future__ import annotations

import re


def without_what_changes(text: str) -> str:
    """Ports, times, durations, ids of runs and calls, hashes, and names that depend on the folder."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text))
    text = re.sub(r"\b[0-9a-f]{64}\b|(?<=plan's hash: )[0-9a-f]{8}", "HASH", text)
    text = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{8}|cockpit_[0-9a-f]{10}|\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?", "NAME", text)
    text = re.sub(r"[\d.]+ m?s\b|just now|\d+ (?:s|min) ago", "TIME", text)
    # how often progress is told, and of which stage, depends on the machine
    progress = r"The deletion of item .*|\d+ of \d+ scopes, .*|preparing|listing [a-z ]+.*|reading GDAP .*"
    text = re.sub(rf"^(?:{progress})\n", "", text, flags=re.MULTILINE)
    return re.sub(r"not there .*", "not there", re.sub(r" +", " ", text))
