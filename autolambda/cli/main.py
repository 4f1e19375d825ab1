"""The command line: all commands as one program. Every error ends as a message and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys

import click

from autolambda import __version__
from autolambda.cli import measure, merge, search, study
from autolambda.cli.arguments import turned
from autolambda.cli.options import INTERRUPTED
from autolambda.errors import AutolambdaError, InputError, SwappedError, error_line

COMMANDS: tuple[click.Command, ...] = (
    search.search,
    search.resume,
    search.confirm,
    study.list_studies,
    study.status,
    study.report,
    merge.export,
    merge.merge,
    merge.validate,
    measure.evaluate,
    measure.ablate,
    measure.stages,
)


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autolambda")
def cli() -> None:
    """Finds the best merge of an Instruct and a Thinking model for your token budget.

    \b
    autolambda search --budget 40              a demo: minutes on a laptop
    autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000
    autolambda export NAME OUT --budget 4000   the pick as a checkpoint folder
    """


def main() -> None:
    """Runs the command line. An ``AutolambdaError`` ends as a line (a ``PairError`` as several) and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends a command as Ctrl-C does
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack a dash or an arrow
    try:
        code = cli.main(prog_name="autolambda", standalone_mode=False)
    except AutolambdaError as error:
        if isinstance(error, SwappedError):
            error = turned(error, sys.argv[1:])
        click.echo(error_line(error), err=True)
        code = error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = InputError.exit_code
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        code = InputError.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
