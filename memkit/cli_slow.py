"""The verbs of the command line that are about the slow tier."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from memkit import cli_render as out
from memkit.cli_options import Agent, CacheDir, File, Json, User, check_there, gentle_interrupts, opened
from memkit.errors import InvalidInput

BandId = Annotated[str, typer.Argument(metavar="BAND", help="The band, as `memkit bands` lists it.")]
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def consolidate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .mem file, or a directory of them.")],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until stopped, whenever there is enough new.")] = False,
    budget: Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Of one sleep: 90s, 10m, 1h.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="A language model on disk that learns the items, too.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Where to train the model: cpu, cuda.")] = None,
    style: Annotated[bool, typer.Option("--style", help="The model also learns how each speaker writes.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Files at a time, of a directory.")] = 1,
    ray: Annotated[str | None, typer.Option("--ray", metavar="ADDRESS", help="Run on this Ray cluster.")] = None,
    user: User = None,
    agent: Agent = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Turn what was learned into bands: replay the log, solve it anew, let in what proves itself."""
    from memkit.slow.worker import modest

    seconds = seconds_of(budget)
    if model is not None and file.is_dir():
        raise InvalidInput(f"--model with a directory of files, {file}; consolidate them one at a time")
    if style and model is None:
        raise InvalidInput("--style without --model; pass the directory of the model that learns it")
    modest()
    pair = () if model is None else language_model(model)
    if file.is_dir():
        _many(file, jobs, ray, seconds, as_json)
    elif watch:
        _watch(file, seconds, cache_dir, as_json, pair, device, style)
    else:
        with opened(file, user, agent, cache_dir=cache_dir) as memory, out.progress("consolidating") as bar:
            report = memory.consolidate(*pair, device=device, style=style, budget=seconds, progress=bar)
        out.emit(report) if as_json else out.show_sleep(report)


def language_model(folder: Path) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from a directory as `save_pretrained` writes it; nothing is fetched.

    Raises:
        InvalidInput: there is none. ImportError: transformers is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
        return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--model {folder}: no causal language model with its tokenizer: {error}") from error


def seconds_of(text: str | None) -> float | None:
    """A time span such as 90s, 10m or 1h, in seconds.

    Raises:
        InvalidInput: it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise InvalidInput(f"--budget {text!r} is no time span; write it as 90s, 10m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def _many(folder: Path, jobs: int, ray: str | None, seconds: float | None, as_json: bool) -> None:
    from memkit.slow import many

    paths = many.files_in(folder)
    with out.progress("consolidating") as bar:
        if ray is None:
            outcomes = many.here(paths, jobs=jobs, budget=seconds, progress=bar)
        else:
            outcomes = many.on_ray(paths, address=ray, budget=seconds, progress=bar)
    if as_json:
        out.emit([outcome._asdict() for outcome in outcomes])
    else:
        out.show_outcomes(outcomes)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(out.NOT_THERE)


def _watch(  # noqa: PLR0917 - the options of one verb
    file: Path,
    seconds: float | None,
    cache_dir: Path | None,
    as_json: bool,
    pair: tuple[Any, ...],
    device: str | None,
    style: bool,
) -> None:
    from memkit.slow.worker import watch

    check_there(file)
    out.note("consolidating whenever there is enough new; stop with Ctrl-C")
    with gentle_interrupts() as stop:
        watch(
            file,
            cache_dir=cache_dir,
            language_model=pair or None,
            device=device,
            style=style,
            budget=seconds,
            stop=stop,
            slept=out.emit if as_json else out.show_sleep,
        )
    raise KeyboardInterrupt


def bands(file: File, *, user: User = None, agent: Agent = None, as_json: Json = False) -> None:
    """Every band: let in or turned away, in force or not, and why."""
    with opened(file, user, agent) as memory:
        found = memory.bands()
    if as_json:
        out.emit_lines(found)
    else:
        out.show_bands(found)


def rollback(
    file: File,
    band: BandId,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Put the band in force again.")] = False,
    user: User = None,
    agent: Agent = None,
    as_json: Json = False,
) -> None:
    """Take a band back, with what was made from it; what acted before acts again, at once."""
    with opened(file, user, agent) as memory:
        switched = memory.rollback(band, undo=undo)
    if as_json:
        out.emit({"switched": switched, "on": undo})
    else:
        out.say(f"{'on' if undo else 'off'}: {', '.join(switched) or 'nothing to switch'}")


VERBS: tuple[Callable[..., None], ...] = (consolidate, bands, rollback)
