"""Where each key of a TOML text stands."""

from __future__ import annotations

import tomllib

from loader_service.configuration.lines import lines_of
from loader_service.configuration.mistakes import Keys

TEXT = '''# a comment with a = 1
first = 1
[table] # [no] table
"quoted \\u0041" = "# no comment"
'it''s' = 2
dotted.key = """
inner = 1
[inner]
\\""" still """""
after = [ # comment ]
  "a = 1", # [x]
  [1, 2],
]
literal = \'\'\'
nothing = 1
\'\'\'
inline = { a = 1, b = { c = "}" } }
[[several]]
x = 1
[several.sub]
y = 1
[[several]]
x = 2
[[several.deep]]
z = 1
[several.sub]
y = 2
'''


def keys_of(value: object, before: Keys = ()) -> set[Keys]:
    """Every key of a document."""
    found = {before} - {()}
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= keys_of(inner, (*before, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            found |= keys_of(inner, (*before, number))
        found.discard(before)
    return found


def test_every_key_has_its_line() -> None:
    text = TEXT.replace("'it''s'", "'it s'")
    found = lines_of(text)
    written = text.splitlines()
    for keys, line in found.items():
        assert (
            str(keys[-1] if isinstance(keys[-1], str) else keys[-2]).split()[0] in written[line - 1]
        )
    all_of_them = keys_of(tomllib.loads(text))
    inner = {keys for keys in all_of_them if keys[1:2] == ("inline",) and len(keys) > 2}
    implicit = {("table", "dotted")}
    assert set(found) == all_of_them - inner - implicit
    assert found["several", 1, "sub", "y"] == 27
    assert found["several", 0, "sub", "y"] == 21
    assert found["several", 1, "deep", 0, "z"] == 25
    assert found["table", "after"] == 10


def test_windows_line_ends_count() -> None:
    assert lines_of("a = 1\r\n\r\nb = 2") == {("a",): 1, ("b",): 3}
