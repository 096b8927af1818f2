"""Structured logs: one JSON object a line, one write a line, on standard error."""

import logging
import os
import sys
import threading
from types import TracebackType

import structlog

_log = structlog.get_logger(__name__)


class _Signature:
    """Says on each line which process wrote it, from whichever thread: context stays in one."""

    def __init__(self, process: str) -> None:
        self._who = {"process": process, "pid": os.getpid()}

    def __call__(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**event, **self._who}


def configure_logging(level: str, *, process: str) -> None:
    """Send this process's logs, and those of the libraries it uses, to standard error.

    Each line is a single ``write`` to its own descriptor: a pipe shared by several threads then
    never mixes two lines. What nobody catches, and warnings, become lines too.
    """
    shared: list[structlog.typing.Processor] = [
        _Signature(process),
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    # The logger owns the descriptor for as long as the process lives.
    handler = logging.StreamHandler(os.fdopen(os.dup(2), "w", buffering=1))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if root.level > logging.DEBUG:
        # Two lines for every call: what came of it is in the job's own.
        logging.getLogger("stripe").setLevel(max(root.level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    _log.critical("uncaught error", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    _log.critical(
        "uncaught error, a thread died",
        thread=args.thread.name if args.thread else None,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    _log.error(
        "error where none can be raised",
        where=repr(args.object),
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
