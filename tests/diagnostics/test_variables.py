"""The list of variables is whole, and a slip in one is told by whatever command reads it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import diagnostics
from diagnostics.variables import VARIABLES, misspelled

PACKAGE = Path(diagnostics.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "configuration.md"
# In quotes, as a word of its own: what is read or set, and no message that names it.
IN_CODE = re.compile(r'"(DIAGNOSTICS_[A-Z_]*[A-Z])"')


def test_the_list_has_what_the_code_reads_and_nothing_else() -> None:
    read = {name for file in PACKAGE.rglob("*.py") for name in IN_CODE.findall(file.read_text(encoding="utf-8"))}
    assert read == VARIABLES


def test_the_documents_list_what_a_user_may_set() -> None:
    rows = set(re.findall(r"^\| `(DIAGNOSTICS_[A-Z_]+)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    # A process that we started sets it for those that it starts.
    assert rows == VARIABLES - {"DIAGNOSTICS_TOLD"}


def test_a_slip_is_told_and_what_kubernetes_sets_is_none() -> None:
    slips = {
        "DIAGNOSTICS_TOKN": "DIAGNOSTICS_TOKEN",
        "DIAGNOSTICS_AGNET": "DIAGNOSTICS_AGENT",
        "DIAGNOSTICS_HEAPS": "DIAGNOSTICS_HEAP",
        "DIAGNOSTICS_RULE": "DIAGNOSTICS_RULES",
        "DIAGNOSTICS_ALLOWED_HOST": "DIAGNOSTICS_ALLOWED_HOSTS",
        "DIAGNOSTICS_FLEET_TARGET": "DIAGNOSTICS_FLEET_TARGETS",
        "DIAGNOSTICS_KEEP_CAPTURE": "DIAGNOSTICS_KEEP_CAPTURES",
    }
    service = [f"DIAGNOSTICS_SERVICE_{what}" for what in ("HOST", "PORT", "PORT_HTTP")]
    ports = ["DIAGNOSTICS_PORT", *(f"DIAGNOSTICS_PORT_6060_TCP{what}" for what in ("", "_ADDR", "_PORT", "_PROTO"))]
    assert misspelled([*slips, *VARIABLES, *service, *ports, "DIAGNOSTICS", "DIAGNOSTICS_", "OTHER"]) == slips


def test_a_command_tells_a_slip_on_standard_error_and_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics", "scenarios", "--json"],
        env={**os.environ, "DIAGNOSTICS_TOKN": "secret-value"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "diagnostics: DIAGNOSTICS_TOKN is no setting; did you mean DIAGNOSTICS_TOKEN?" in done.stderr
    assert "secret-value" not in done.stderr + done.stdout
