"""Settings from the environment, as containers are given them: ``MODEL_LOADER_LIMITS_THREADS``."""

from __future__ import annotations

from collections.abc import Mapping

from loader_service.configuration.mistakes import ENVIRONMENT, Place
from loader_service.configuration.nearest import nearest
from loader_service.configuration.schema import TABLES
from loader_service.configuration.values import Values

PREFIX = "MODEL_LOADER"


def variable(table: str, name: str) -> str:
    """Return the variable that overrides a setting."""
    return f"{PREFIX}_{table}_{name}".upper()


def read_environment(environment: Mapping[str, str]) -> Values:
    """Read the variables whose names begin as a table's do; other ones are not the service's."""
    values = Values()
    for table, kinds in TABLES.items():
        known = {variable(table, name): name for name in kinds}
        for written, text in environment.items():
            if not written.startswith(variable(table, "")):
                continue
            place = Place(ENVIRONMENT, name=written)
            if written not in known:
                values.wrong(place, "there is no such setting" + nearest(written, known))
            else:
                name = known[written]
                values.read((table, name), kinds[name], text, place, text=True)
    return values
