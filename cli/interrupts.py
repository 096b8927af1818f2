"""Ctrl-C, also where Python would lose it.

``KeyboardInterrupt`` is raised wherever the program happens to be. Where that is a weak reference's
callback or a destructor, Python prints it and goes on; after a wait for the database it often is.
So what takes long asks here as well.
"""

import signal
import threading
from types import FrameType

_pressed = threading.Event()


def interrupt_on(*signals: signal.Signals) -> None:
    """Make these signals interrupt the program, unless it was started to ignore them."""
    for one in signals:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _interrupt)


def check() -> None:
    """End here if we were interrupted before.

    Raises:
        KeyboardInterrupt: We were.
    """
    if _pressed.is_set():
        raise KeyboardInterrupt


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    _pressed.set()
    raise KeyboardInterrupt
