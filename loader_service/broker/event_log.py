"""The log as a reader of the events: one line for each."""

from __future__ import annotations

import logging

from loader_service.broker.event_stream import Told
from loader_service.broker.events import Fact

log = logging.getLogger("model_loader.events")


def write(told: Told) -> None:
    """Log an event, if its level is logged; its facts go along for logs in JSON."""
    event = told.event
    if log.isEnabledFor(event.level):
        facts = event.facts()
        log.log(
            event.level,
            "%s",
            sentence(event.kind, facts),
            extra={"facts": {"event": event.kind} | facts},
        )


def sentence(kind: str, facts: dict[str, Fact]) -> str:
    """Write an event for people: ``model-lost: user=1000 …``; a message stands at the end."""
    words = [f"{name}={shown(value)}" for name, value in facts.items() if name != "message"]
    if "message" in facts:
        words.append(f"({facts['message']})")
    return f"{kind}: {' '.join(words)}" if words else kind


def shown(value: Fact) -> str:
    """Write one fact: numbers short, texts with spaces in quotes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return repr(text) if any(map(str.isspace, text)) or not text else text
