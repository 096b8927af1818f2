"""Links to the clients' own pages, as far as this process can sign them."""

from typing import Annotated

from fastapi import Depends, Request

from tasks.links import Links


def links_of(request: Request) -> Links | None:
    """What makes and reads the links; ``None`` where the process was given no key."""
    links: Links | None = request.app.state.links
    return links


LinksOf = Annotated[Links | None, Depends(links_of)]
