"""The settings that flows run under; they must stand before Prefect is imported."""

import os

SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a first start migrates its database: 15–20 s
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # failures are reported in one line instead
}


def prepare(*, debug: bool) -> None:
    """Set what the environment leaves open; `debug` lets Prefect's own log through to stderr."""
    settings = SETTINGS | ({"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG"} if debug else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)
