"""The real embedded broker, whose zygotes are those of ``probe_zygote``.

    python -m tests.hostile.probe_broker LIFE OPTIONS SETTINGS

as ``tests.support.broker_variant``; the broker's memory holds a secret: `SECRET` of `SETTINGS`.
"""

from __future__ import annotations

import json
import sys

from loader_service.broker import device_checks, zygote_process
from loader_service.broker import settings as broker_settings
from loader_service.broker.self_test_process import SelfTest
from tests.hostile.attacks.memory import secret_of
from tests.support import broker_variant

REAL = "loader_service.worker.zygote"
_held: list[bytearray] = []


def main(arguments: list[str]) -> int:
    """Run the broker until the life socket ends; returns its exit status."""
    life, options, settings = arguments
    changed = json.loads(settings)
    _held.append(secret_of(changed.pop("secret")))
    bootstrap = zygote_process.BOOTSTRAP.replace(
        "loader_service.worker.zygote", "tests.hostile.probe_zygote"
    )
    assert bootstrap != zygote_process.BOOTSTRAP
    setattr(zygote_process, "BOOTSTRAP", bootstrap)  # noqa: B010
    probe = json.loads(options)["runtime"]
    setattr(broker_settings, "RUNTIMES", (*broker_settings.RUNTIMES, probe))  # noqa: B010
    # Devices are tested with a runtime that computes.
    setattr(  # noqa: B010
        device_checks, "SelfTest", lambda _, device: SelfTest("auto", device)
    )
    return broker_variant.main([life, options, json.dumps(changed)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
