"""The server that Prefect starts beside a run where no other is named."""

import atexit
import signal
import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer


class DeafServer(SubprocessASGIServer):
    """Ctrl-C, which a terminal sends to it too, does not reach it: it has to hear how the run ended.

    Prefect starts the one that was made first.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits it
        try:
            process = self.server_process = super()._run_uvicorn_command()
            atexit.register(self.stop)  # before a Ctrl-C that came meanwhile is let through
            return process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
