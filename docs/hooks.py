"""For the documentation's pages: what a page says of the repository's files is text there, and no link.

Pages are also read in the repository, where ``../reports/published`` is a link. A built page has no such file beside
it.
"""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with each page's text."""
    return OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2]}`)", markdown)
