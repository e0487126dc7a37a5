"""The command line. It imports torch only when a run begins, and shows every user's error as sentences."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlgan.cli import show
from rlgan.discovery import KINDS
from rlgan.errors import PluginError, RlganError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from rlgan.registry import Registry

_KINDS = click.Choice(list(KINDS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 ok, 2 usage, 3 plugin, 4 env, 5 not finite, 130 and 143 signals."""
    # OpenMP threads that spin for long at their barriers starve the emulators' threads, and with any other busy process
    # beside them slow each other a hundredfold; it must be set before torch is loaded
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "_RLGAN_COMPLETE" in os.environ:
        import rlgan.cli.complete  # noqa: F401 - tells click how each shell is answered
    try:
        code = cli.main(arguments, prog_name="rlgan", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except RlganError as error:
        if os.environ.get("RLGAN_STRICT") == "1":
            raise
        click.echo("\n".join(f"rlgan: {line}" for line in str(error).splitlines()), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    return code if isinstance(code, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rlgan", prog_name="rlgan")
def cli() -> None:
    """Reinforcement learning and GANs as plugins on one core.

    \b
    rlgan run agent=dqn env=breakout          learn
    rlgan run agent=dqn env=breakout --help   every key that applies, with its value
    rlgan watch last                          see the agent that learned
    rlgan list                                what is installed
    """


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from rlgan.cli.complete import complete_word

    return complete_word(context.params.get("words") or (), incomplete)


@cli.command(context_settings={"help_option_names": []})
@click.argument("words", nargs=-1, shell_complete=_complete)
@click.option("--dry-run", is_flag=True, help="Print the resolved config and stop.")
@click.option(
    "-h", "--help", "wants_help", is_flag=True, help="Show each key that applies, and where its value comes from."
)
@click.pass_context
def run(context: click.Context, words: tuple[str, ...], dry_run: bool, wants_help: bool) -> int:
    """Learn: rlgan run agent=NAME env=NAME | generator=NAME data=NAME [key=value | @file.yaml]...

    \b
    agent.lr=1e-4   steps=10M    a value; 10M, 1e6 and 1_000_000 are numbers
    seed=0,1,2      seed=0..9    a matrix of runs, one after the other
    trackers=[tensorboard]       a list
    @runs/x/config.yaml          the settings of a file; the words beside it outrank it
    """
    from rlgan import config

    if wants_help:
        click.echo(show.explain(context.get_help(), config.draft(words, _registry())))
        return 0
    runs = config.resolve(words, _registry())
    if dry_run:
        click.echo(show.resolved(runs), nl=False)
        return 0
    if len(runs) > 1:
        from rlgan.cli.matrix import run_each

        return run_each(runs)
    from rlgan import session

    return session.train(runs[0])


@cli.command()
@click.argument("run_dir")
@click.argument("words", nargs=-1)
def resume(run_dir: str, words: tuple[str, ...]) -> int:
    """Go on with a run from its newest checkpoint: rlgan resume DIR|last [steps=N].

    \b
    rlgan resume last steps=2M    a run that has reached its end, or not, goes on until step 2,000,000
    """
    from rlgan import config
    from rlgan.cli.options import ResumeOptions

    path, options = find_run(run_dir), config.read_options(words, ResumeOptions)
    from rlgan import session

    return session.resume(path, options.steps)


@cli.command(name="eval")
@click.argument("run_dir")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(run_dir: str, words: tuple[str, ...], as_json: bool) -> None:
    """Judge what was learned: rlgan eval DIR|last [episodes=100 | samples=1000] [demos=FILE].

    \b
    rlgan eval last checkpoint=best                           the best by its evaluation in the run, not the newest
    rlgan eval last temperature=0.7                           sequences, at another temperature than the run's
    rlgan eval last temperatures=[0.5,0.7,1] against=RUN_DIR  quality against diversity, as plane.png
    """
    from rlgan import config
    from rlgan.cli.options import EvalOptions

    path, options = find_run(run_dir), config.read_options(words, EvalOptions)
    if options.temperatures:
        clash = [name for name in ("episodes", "demos", "temperature") if getattr(options, name) is not None]
        if clash:
            raise UsageError(f"temperatures=[...] judges sequences at each of them: leave {clash[0]}= out")
        from rlgan import sweep

        given = options.temperatures, options.samples, options.seed
        found = sweep.sweep(path, *given, options.against, options.checkpoint)
        click.echo(json.dumps(found) if as_json else show.rows(found["rows"]) + f"\n{found['file']}")
        return
    if options.against:
        raise UsageError("against= is drawn beside temperatures: write temperatures=[0.5,0.7,1] too")
    from rlgan import session

    result = session.evaluate(
        path,
        options.episodes,
        options.samples,
        options.seed,
        options.demos,
        options.temperature,
        options.checkpoint,
    )
    click.echo(json.dumps(result) if as_json else show.evaluation(result))


@cli.command()
@click.argument("run_dir")
@click.argument("words", nargs=-1)
def watch(run_dir: str, words: tuple[str, ...]) -> None:
    """Film a trained agent: rlgan watch DIR|last [episodes=1] [seed=0] [checkpoint=best] [out=FILE.mp4]."""
    from rlgan import config
    from rlgan.cli.options import WatchOptions

    path, options = find_run(run_dir), config.read_options(words, WatchOptions)
    from rlgan import film

    click.echo(film.watch(path, options.episodes, options.seed, options.out, options.checkpoint))


@cli.command()
@click.argument("run_dir")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sample(run_dir: str, words: tuple[str, ...], as_json: bool) -> None:
    """Show what a generator makes: rlgan sample DIR|last [n=64] [seed=0] [prefix=TEXT] [temperature=1] [out=FILE]."""
    from rlgan import config
    from rlgan.cli.options import SampleOptions

    path, options = find_run(run_dir), config.read_options(words, SampleOptions)
    from rlgan import session

    given = options.n, options.seed, options.prefix, options.out, options.temperature, options.checkpoint
    made = session.sample(path, *given)
    if as_json:
        click.echo(json.dumps({"samples": made} if isinstance(made, list) else {"file": str(made)}))
    else:
        click.echo("\n".join(made) if isinstance(made, list) else made)


@cli.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, which compare also reads.")
def compare(words: tuple[str, ...], as_json: bool) -> None:
    """A table of runs of several seeds: rlgan compare FOLDER... [against=FOLDER] [reach=475].

    \b
    A FOLDER is a run, holds runs, or is a JSON file of results; its last evaluations are taken.
    rlgan compare runs/ppo runs/a2c reach=475
    rlgan compare runs/ppo against=runs/sb3
    """
    from rlgan import config
    from rlgan.bench import results
    from rlgan.cli.options import CompareOptions

    keys = [word for word in words if re.match(r"\w+=", word) and not Path(word).exists()]
    options = config.read_options(keys, CompareOptions)
    paths = [Path(word) for word in words if word not in keys]
    if not paths:
        raise UsageError("there is nothing to compare: name a folder of runs before against= and reach=.")
    rows = results.table(paths, options.against, options.reach)
    every = [*paths, *([options.against] if options.against else [])]
    click.echo(results.as_json(rows, every) if as_json else results.markdown(rows))


@cli.command(name="list")
@click.argument("kind", type=_KINDS, required=False)
@click.option("-v", "--verbose", is_flag=True, help="Import each plugin and show its summary.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_names(kind: str | None, verbose: bool, as_json: bool) -> None:
    """The names that can be used: rlgan list [agents|envs|generators|data|rewards|hooks]."""
    registry = _registry()
    entries = [entry for entry in registry.all() if kind in (None, entry.kind)]
    specs = {}
    if verbose:
        specs = {show.identity(d.entry): d for d in registry.doctor(kind)}
    click.echo(show.names_json(entries, specs) if as_json else show.names(entries, specs))


@cli.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """Installed plugins with distribution, version and status; imports none. See also: rlgan plugins doctor."""
    if context.invoked_subcommand is None:
        entries = _registry().all()
        click.echo(show.plugins_json(entries) if as_json else show.plugins(entries))


@plugins.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> int:
    """Import every plugin, each on its own, and say what is wrong; exit 3 if any is broken."""
    results = _registry().doctor()
    click.echo(show.doctor_json(results) if as_json else show.doctor(results))
    return PluginError.exit_code if any(r.entry.status in ("broken", "duplicate") for r in results) else 0


@plugins.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(name: str, as_json: bool) -> int:
    """Run the conformance checks of a plugin: rlgan plugins check [KIND.]NAME|FILE.py; exit 3 if one fails.

    \b
    rlgan plugins check ./shop.py
    rlgan plugins check dqn
    rlgan plugins check envs.cartpole
    rlgan plugins check gym:CartPole-v1
    """
    registry = _registry()
    if name.endswith(".py"):
        registry.allow(name, Path(name))
        kind, plugin = "envs", name
    else:
        kind, plugin = registry.locate(name)
    from rlgan.testing import plugins as conformance

    results = list(conformance.check(kind, plugin, registry))
    click.echo(show.checks_json(f"{kind}.{plugin}", results) if as_json else show.checks(results))
    return PluginError.exit_code if any(r.status == "failed" for r in results) else 0


@plugins.command()
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(["agent", "env", "generator"]), required=True, help="What the package offers."
)
def new(name: str, kind: str) -> None:
    """Write a complete package to start from: rlgan plugins new NAME --kind agent|env|generator."""
    from rlgan.cli import scaffold

    folder = scaffold.write(name, kind, Path(), _registry())
    click.echo(f"{folder} is a package of a working {kind}. Next:\n{scaffold.next_steps(folder, name, kind)}")


def find_run(text: str, root: Path = Path("runs")) -> Path:
    """The run directory that is named; ``last`` = the newest under ``root``, by its config.yaml."""
    if text == "last":
        configs = [*root.glob("*/config.yaml"), *root.glob("*/*/config.yaml")]
        if not configs:
            raise UsageError(f"there is no run under {root}/: start one with `rlgan run agent=NAME env=NAME`.")
        return max(configs, key=lambda path: path.stat().st_mtime_ns).parent
    path = Path(text)
    if not (path / "config.yaml").is_file():
        raise UsageError(f"{text} is not a run directory (it has no config.yaml): give one, or `last` for the newest.")
    return path


def _registry() -> Registry:
    from rlgan.registry import Registry

    return Registry()
