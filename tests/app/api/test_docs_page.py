"""/docs works where there is no other host."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tests.app.api.client import Api


class Links(HTMLParser):
    """Everything that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


async def test_the_docs_load_nothing_from_elsewhere(api: Api) -> None:
    page = await api.get("/docs")
    assert page.status_code == 200
    assert re.findall(r"(?:https?:)?//[a-z0-9]", page.text, re.IGNORECASE) == []
    assert '"validatorUrl": null' in page.text  # else the page asks a validator about the document
    links = Links()
    links.feed(page.text)
    kinds = set()
    for link in links.found:
        asset = await api.get(link)
        assert asset.status_code == 200, link
        assert len(asset.content) > 1000, link
        kinds.add(asset.headers["content-type"].partition(";")[0])
    assert kinds == {"text/css", "text/javascript", "image/png"}
    assert "/openapi.json" in page.text
    assert (await api.get("/redoc")).status_code == 404
