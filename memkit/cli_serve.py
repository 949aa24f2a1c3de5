"""The verb of the command line that serves a file to other programs."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from memkit.cli_options import Agent, File, Run, User
from memkit.errors import InvalidInput


def mcp(
    file: File,
    *,
    user: User = None,
    agent: Agent = None,
    run: Run = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer what reads alone.")] = False,
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP on this machine instead of stdio.")] = False,
    port: Annotated[int, typer.Option("--port", metavar="N", help="Of --http.")] = 8000,
) -> None:
    """Serve FILE to a client of the Model Context Protocol. Makes FILE when it does not exist."""
    try:
        (server,) = entry_points(group="memkit.servers", name="mcp")  # adapters stand above: nothing here imports one
        serve = server.load()
    except ValueError:
        raise InvalidInput(
            "memkit is not installed, so that its server cannot be found; run pip install first"
        ) from None
    except ImportError as error:
        raise InvalidInput(str(error)) from error
    scope = {"user_id": user, "agent_id": agent, "run_id": run}
    serve(str(file), **scope, read_only=read_only, http=http, port=port)
