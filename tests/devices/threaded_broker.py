"""The real embedded broker, whose self-tests find that every device starts a thread when loaded.

    python -m tests.devices.threaded_broker LIFE OPTIONS SETTINGS

as ``tests.support.broker_variant``.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from loader_service.broker import device_checks
from loader_service.broker.self_test_process import SelfTest
from loader_service.devices.catalogue import Enabled
from tests.support import broker_variant


class FindsThreads(SelfTest):
    """Says so, whatever it finds."""

    def outcome(self) -> Enabled:
        return replace(super().outcome(), threads=1, afresh=True)


def main(arguments: list[str]) -> int:
    """Run the broker until the life socket ends; returns its exit status."""
    setattr(device_checks, "SelfTest", FindsThreads)  # noqa: B010
    return broker_variant.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
