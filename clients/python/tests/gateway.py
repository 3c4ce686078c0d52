"""The real gateway, in a process of its own, on a free port, with a data directory that goes when it does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = Path(os.environ.get("STREAMGATE_TEST_BINARY", TARGET / "debug/streamgate"))
PATIENCE = 60.0


class Gateway:
    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="streamgate-client-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.run()
        self.token = (self.directory / "first-token").read_text().strip()

    def run(self) -> None:
        """Starts it, again, and returns when it is ready."""
        settings = {
            "PATH": os.environ["PATH"],
            "STREAMGATE_LISTEN": f"127.0.0.1:{self.port}",
            "STREAMGATE_ADMIN__LISTEN": "127.0.0.1:0",
            "STREAMGATE_DATA_DIR": str(self.directory),
        }
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([BINARY], env=settings, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health/ready").close()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.directory / "log").read_text()) from error
                time.sleep(0.02)

    def kill(self) -> None:
        """Ends the process as a crash does: its agents go on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ends it and all that it left, and takes its data away."""
        self.kill()
        place = str(self.directory).encode()
        for process in Path("/proc").iterdir():
            try:
                if place in (process / "cmdline").read_bytes() or place in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ValueError):
                pass  # None of ours, or it has ended.
        shutil.rmtree(self.directory, ignore_errors=True)
