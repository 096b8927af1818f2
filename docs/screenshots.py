"""Makes the README's pictures from the running product: ``make screenshots``.

Wants pdftoppm and chromium on the PATH (Debian's poppler-utils and chromium).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COLUMNS = 132
INVOICE_DPI = 80
MAIL_SIZE = "660,560"

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
    _draw_mail(_path_after("the mail that told it", demo.stdout))


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


def _draw_mail(page: Path) -> None:
    subprocess.run(
        [
            _program("chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--window-size={MAIL_SIZE}",
            f"--screenshot={IMAGES / 'mail.png'}",
            page.as_uri(),
        ],
        stderr=subprocess.DEVNULL,
        check=True,
    )


if __name__ == "__main__":
    main()
