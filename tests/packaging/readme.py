"""The README's example, for whatever was installed from this tree."""

from __future__ import annotations

import re

from tests.docs.markdown import blocks
from tests.shared_models import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROGRAM = next(block.text for block in blocks(TEXT) if block.language == "python")
ANSWER = re.compile(r"it is a 2 - read behind .*\bseccomp\b.*\n")
"""What the program prints, on a machine that gives what the tests need."""
EXAMPLES = REPOSITORY / "examples"
"""The folder that the program reads its model and its image from."""
