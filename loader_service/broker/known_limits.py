"""The names that a failure may give a limit: there are no others in metrics and events."""

from __future__ import annotations

from dataclasses import fields

from model_loader_wire.limits import Limits
from model_loader_wire.shared_limits import SHARED_LIMITS

SETTINGS = ("crash_loop_deaths", "message_seconds", "handshake_seconds")
"""Settings of the broker that end something as limits do."""

KNOWN_LIMITS = frozenset({*(field.name for field in fields(Limits)), *SHARED_LIMITS, *SETTINGS})
