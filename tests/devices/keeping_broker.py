"""The real embedded broker and zygote, whose catalogue of devices has one of the tests' more.

    python -m tests.devices.keeping_broker LIFE OPTIONS SETTINGS

as ``tests.support.broker_variant``.
"""

from __future__ import annotations

import sys

from loader_service.broker import zygote_process
from tests.devices.keeping_device import join_catalogue
from tests.support import broker_variant

REAL = "from loader_service.worker.zygote import main\n"
JOINING = "from tests.devices.keeping_device import join_catalogue\njoin_catalogue()\n"


def main(arguments: list[str]) -> int:
    """Run the broker until the life socket ends; returns its exit status."""
    join_catalogue()
    bootstrap = zygote_process.BOOTSTRAP.replace(REAL, REAL + JOINING)
    assert bootstrap != zygote_process.BOOTSTRAP
    setattr(zygote_process, "BOOTSTRAP", bootstrap)  # noqa: B010
    return broker_variant.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
