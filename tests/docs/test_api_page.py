"""The page of the API names everything that is public, with the arguments that it really takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import model_loader as ml
from tests.shared_models import REPOSITORY

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
CLASSES = (ml.MLContext, ml.MLModelLoader, ml.MLModel, ml.Connection, ml.Lost, ml.Isolation)


def arguments(function: Callable[..., Any]) -> str:
    """Return a function's arguments as the page writes them: names and defaults, no types."""
    given = inspect.signature(function).parameters.values()
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in given
        if parameter.name != "self"
    ]
    return str(inspect.Signature(bare)).replace("'", '"')


def public_members(kind: type) -> set[str]:
    """Return the names that a class shows."""
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", ml.__all__)
def test_every_public_name_is_on_the_page(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


@pytest.mark.parametrize(
    ("kind", "member"),
    [(kind, member) for kind in CLASSES for member in sorted(public_members(kind))],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_public_member_is_on_the_page(kind: type, member: str) -> None:
    assert re.search(rf"`{member}\b|\.{member}\b", PAGE), f"{kind.__name__}.{member}"


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("compute", ml.MLModel.compute),
        ("load", ml.MLModelLoader.load),
        ("connect", ml.connect),
        ("embed", ml.embed),
        ("inspect", ml.Connection.inspect),
    ],
)
def test_arguments_are_those_that_the_page_shows(name: str, function: Callable[..., Any]) -> None:
    assert f"`{name}{arguments(function)}`" in PAGE


def test_the_context_is_made_with_the_arguments_of_the_page() -> None:
    shown = re.search(r"ml\.create_context\(\n(.*?)\n\)", PAGE, re.DOTALL)
    assert shown
    given = " ".join(line.strip() for line in shown[1].splitlines()).rstrip(",")
    assert f"(*, {given})" == arguments(ml.create_context)


@pytest.mark.parametrize("name", ["MLContext", "MLModelLoader", "MLModel", "Connection"])
def test_the_asynchronous_face_shows_the_same(name: str) -> None:
    blocking, asynchronous = getattr(ml, name), getattr(ml.aio, name)
    assert public_members(blocking) == public_members(asynchronous)
    for member in public_members(blocking):
        if callable(getattr(blocking, member)):
            same = getattr(asynchronous, member)
            assert arguments(getattr(blocking, member)) == arguments(same), member


def test_everything_public_has_a_docstring() -> None:
    for face in (ml, ml.aio):
        for name in face.__all__:
            thing = getattr(face, name)
            assert inspect.getdoc(thing), name
            if inspect.isclass(thing) and not issubclass(thing, Exception):
                for member in public_members(thing):
                    value = inspect.getattr_static(thing, member)
                    if callable(value) or isinstance(value, property):
                        assert inspect.getdoc(getattr(thing, member)), f"{name}.{member}"


def test_the_tree_of_errors_is_that_of_the_module() -> None:
    shown = set(re.findall(r"[├└]── (\w+)", PAGE))
    assert shown == {kind.__name__ for kind in ml.ModelLoaderError.__subclasses__()}
