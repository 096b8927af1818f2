"""Makes the README's pictures from the running product: ``make screenshots``.

Wants pdftoppm and chromium on the PATH (Debian's poppler-utils and chromium).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COLUMNS = 132
INVOICE_DPI = 80
MAIL_SIZE = "660,560"
PAGE_SIZE = "860,720"

_THEME = TerminalTheme(
    (250, 250, 248),
    (40, 44, 52),
    [(40, 44, 52), (178, 50, 60), (46, 125, 70), (160, 110, 20), (45, 95, 170), (130, 70, 150),
     (30, 120, 130), (120, 124, 130)],
)  # fmt: skip

# Rich's own frame asks a content delivery network for its font; the reader's will do.
_FRAME = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect fill="#fafaf8" stroke="#d8d8d4" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix" xml:space="preserve">{matrix}</g></g>
</svg>
"""


def main() -> None:
    """Run the demo for real, and draw what it printed."""
    demo = subprocess.run(
        [sys.executable, "-m", "cli.main", "demo"],
        env={**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(demo.stdout))
    IMAGES.mkdir(exist_ok=True)
    console.save_svg(str(IMAGES / "demo.svg"), theme=_THEME, code_format=_FRAME, unique_id="demo")
    _draw_invoice(_path_after("the invoice above", demo.stdout))
    _draw_page(_path_after("the mail that told it", demo.stdout).as_uri(), MAIL_SIZE, "mail")
    with _a_stack() as call:
        _draw_page(_an_invoices_page(call), PAGE_SIZE, "page")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not on the PATH")
    return found


def _path_after(words: str, printed: str) -> Path:
    """Where the demo says that something is."""
    found = re.search(rf"{words}\s+(\S+)", printed)
    if found is None:
        raise SystemExit(f"the demo did not say where {words} is")
    return Path(found[1]).resolve()


def _draw_invoice(document: Path) -> None:
    size = ["-r", str(INVOICE_DPI), "-singlefile"]
    subprocess.run([_program("pdftoppm"), "-png", *size, document, IMAGES / "invoice"], check=True)


def _draw_page(url: str, size: str, name: str) -> None:
    subprocess.run(
        [
            _program("chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--window-size={size}",
            f"--screenshot={IMAGES / name}.png",
            url,
        ],
        stderr=subprocess.DEVNULL,
        check=True,
    )


class _Api:
    """The HTTP API of a stack; every command is waited for."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url}/v1"
        self._headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=30"}

    def __call__(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        answer = urllib3.request(method, self._url + path, headers=self._headers, json=body)
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {answer.data.decode()}")
        return json.loads(answer.data)


@contextmanager
def _a_stack() -> Iterator[_Api]:
    """An empty stack of its own."""
    with tempfile.TemporaryDirectory() as directory:
        up = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--json", "--dir", directory],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            # It prints where it is once all is ready.
            if up.stdout is None or not up.stdout.readline():
                raise SystemExit("the stack did not start")
            lines = (Path(directory) / "duecourse.env").read_text().splitlines()
            settings = dict(line.split("=", 1) for line in lines if "=" in line)
            yield _Api(settings["PUBLIC_URL"], settings["DUECOURSE_API_KEY"].strip("'"))
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait()


def _an_invoices_page(call: _Api) -> str:
    """Where the client of a new invoice sees it."""
    call("PATCH", "/account", {"name": "Bluebird Prep"})
    client = call(
        "POST",
        "/clients",
        {"name": "Ada Imports", "email": "ada@imports.example", "billing_cycle": "manual"},
    )["id"]
    for description, quantity, unit_price in (
        ("FNSKU labelling", "1240", "0.2750"),
        ("Bubble wrap, fragile items", "85", "0.60"),
        ("Storage, pallet and month", "6", "18.00"),
    ):
        charge = {"description": description, "quantity": quantity, "unit_price": unit_price}
        call("POST", "/charges", {"client": client, **charge})
    [invoice] = call("POST", "/invoices", {"client": client})["result"]["invoices"]
    call("POST", f"/invoices/{invoice}/finalize", {"collect": False})
    return str(call("GET", f"/invoices/{invoice}")["hosted_url"])


if __name__ == "__main__":
    main()
