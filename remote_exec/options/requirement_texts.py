"""Requirements in one text, as a flag or a variable has them: ``six``, ``six,tqdm>=4``, ``"six tqdm"``."""

from __future__ import annotations

import os
import re
from difflib import SequenceMatcher

AUTO_CAPTURE = "auto_capture"
ALIKE = 0.8  # what is so much like that word is taken for it, misspelt
_BREAK = re.compile(r"[\s,]+(?=[A-Za-z0-9])(?![^\[]*\])")  # not within the brackets of extras
_OPERATOR = re.compile(r"(?:[<>=!~]=?|===)\s*$")


def requirements_in(text: str) -> list[str] | None:
    """Return the requirements that a text holds; None where it is rather a file's path, or no requirement at all.

    A comma belongs to a requirement where a version follows it.

    Example:
        >>> requirements_in("six, numpy>=1,<3 pandas[performance,excel]")
        ['six', 'numpy>=1,<3', 'pandas[performance,excel]']
        >>> requirements_in("requirements.txt"), requirements_in("auto_capture")
        (None, None)
    """
    if os.path.exists(os.path.expanduser(text)):
        return None
    if os.path.splitext(text)[1][1:].isalpha() and "@" not in text:
        return None
    if SequenceMatcher(None, text, AUTO_CAPTURE).ratio() >= ALIKE:
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    parts = [text.strip()] if ";" in text or "@" in text else _parts(text.strip())
    try:
        for part in parts:
            Requirement(part)
    except InvalidRequirement:
        return None
    return parts


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    begin = 0
    for found in _BREAK.finditer(text):
        if not _OPERATOR.search(text[: found.start()]):  # `six >= 1`
            parts.append(text[begin : found.start()])
            begin = found.end()
    return [*parts, text[begin:].rstrip(" ,")]
