"""An embedded broker with other settings than a program can ask for.

    python -m tests.support.broker_variant LIFE OPTIONS SETTINGS

LIFE and OPTIONS as of ``loader_service.broker.embedded``; SETTINGS is a JSON object with fields of
``Settings``, and ``cgroups``: false to run as on a host whose cgroups cannot be written to;
``devices`` are enabled as a program enables them.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from loader_service.broker import embedded, embedded_life
from loader_service.broker.settings import Settings
from loader_service.sandbox import cgroup


def main(arguments: list[str]) -> int:
    """Run the broker until the life socket ends; returns its exit status."""
    life, options, settings = arguments
    changed = json.loads(settings)
    # A process in waiting would be one more than a test has loaded models.
    changed.setdefault("spare_seconds", 0)
    if not changed.pop("cgroups", True):
        cgroup.discover = lambda: None
    for name in ("allowed_uids", "embedder_uids"):
        if name in changed:
            changed[name] = frozenset(changed[name])
    options = json.dumps(json.loads(options) | {"devices": changed.pop("devices", [])})
    setattr(embedded_life, "Settings", partial(Settings, **changed))  # noqa: B010
    return embedded.main([life, options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
