"""The home page: what this is, whether it is well, and where to go on."""

from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.health import what_is_missing
from api.transactions import EngineOf

router = APIRouter(include_in_schema=False)

VERSION = version("duecourse")

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates" / "pages"),
    autoescape=True,
    undefined=StrictUndefined,
)


@router.get("/")
def home(engine: EngineOf) -> HTMLResponse:
    """For whoever opens the address in a browser."""
    page = _templates.get_template("home.html")
    return HTMLResponse(
        page.render(version=VERSION, missing=what_is_missing(engine)), headers=_HEADERS
    )
