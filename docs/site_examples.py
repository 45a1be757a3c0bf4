"""Examples in docstrings (`>>> ...`) as blocks of code in the reference, where Markdown would read them as prose."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Examples(griffe.Extension):  # type: ignore[misc]  # typed as Any where the extra `docs` is missing
    """Put a fence around each example."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of a module, class or function as it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
