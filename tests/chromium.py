"""A headless Chromium driven over its debugging pipe: pages with real data, keys, pictures, in both colour schemes.

The protocol is DevTools' (https://chromedevtools.github.io/devtools-protocol/): JSON messages that end in NUL, commands to
the browser on descriptor 3, answers from it on 4. No port, no driver, no package.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PIPE = ("--hide-scrollbars", "--remote-debugging-pipe")
PATIENCE_SECONDS = 60.0
# What the browser says of a question to a page that it leaves meanwhile.
LEFT = (
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
)


class PageLeftError(Exception):
    """The page was left for another one before it could answer."""


def run_once(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a browser to its end with these further words; its files lie in `folder`."""
    done = subprocess.run(
        ["chromium", *OPTIONS, f"--user-data-dir={folder}/user", *words],
        check=False, capture_output=True, encoding="utf-8", timeout=250, env=_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def _environment() -> dict[str, str]:
    """Ours, with a short temporary folder: it has a socket there, whose address may have 107 bytes."""
    return {**os.environ, "TMPDIR": "/tmp"}


class Browser:
    """One browser with one page, for the time of a `with`."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 960) -> None:
        self._folder = folder
        self._size = width, height
        self._number = 0
        self._buffer = b""
        self._session: str | None = None

    def __enter__(self) -> Self:
        program = shutil.which("chromium")
        assert program is not None, "chromium is not installed"
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        self._log = open(self._folder / "chromium.log", "wb")  # closed with the browser
        # The shell moves the pipes to where the browser wants them; `<&12` is more than every shell understands.
        script = f'exec "$0" "$@" 3</proc/self/fd/{commands} 4>/proc/self/fd/{answers}'
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", script, program, *OPTIONS, *PIPE, f"--user-data-dir={self._folder}/browser", "about:blank"],
            stdout=self._log, stderr=self._log, pass_fds=(commands, answers), env=_environment(),
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        try:
            self._open_page()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _open_page(self) -> None:
        target = next(each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # keys go nowhere in a page without focus
        width, height = self._size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if answer.get("error", {}).get("message") in LEFT:
                    raise PageLeftError(method)
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, a promise awaited."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until the expression is true in the page, or in one that it is left for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._is(expression):
            assert time.monotonic() < deadline, f"{expression} was never true in:\n{self.text()}"
            time.sleep(0.1)

    def _is(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(f"!!({expression})"))  # an element is no value that the protocol could give
        except PageLeftError:
            return False

    def text(self) -> str:
        return str(self.evaluate("document.body.innerText"))

    def press(self, key: str, code: int) -> None:
        """A key down and up, as from a keyboard; `code` is its virtual key code (9 Tab, 13 Enter)."""
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self) -> bytes:
        """The page as WebP: a third of a PNG's size."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="webp", quality=85)["data"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_SECONDS)
            data = os.read(self._read, 1 << 20) if ready else b""
            assert data, (
                f"chromium ended or hangs: {(self._folder / 'chromium.log').read_text(errors='replace')[-2000:]}"
            )
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message
