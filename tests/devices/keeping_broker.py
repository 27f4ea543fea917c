"""The real embedded broker, its zygote and its self-tests, with one device more in the catalogue.

    python -m tests.devices.keeping_broker LIFE OPTIONS SETTINGS

as ``tests.support.broker_variant``.
"""

from __future__ import annotations

import sys
from importlib import import_module

from tests.devices.keeping_device import join_catalogue
from tests.support import broker_variant

PROGRAMS = {
    "loader_service.broker.zygote_process": "BOOTSTRAP",
    "loader_service.broker.self_test_process": "PROGRAM",
}
OWN_IMPORT = "from loader_service"
JOINING = "from tests.devices.keeping_device import join_catalogue\njoin_catalogue()\n"


def main(arguments: list[str]) -> int:
    """Run the broker until the life socket ends; returns its exit status."""
    # Before anybody imports the catalogue's kinds.
    join_catalogue()
    for name, variable in PROGRAMS.items():
        module = import_module(name)
        program = getattr(module, variable)
        assert program.count(OWN_IMPORT) == 1
        setattr(module, variable, program.replace(OWN_IMPORT, JOINING + OWN_IMPORT))
    return broker_variant.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
