"""The command line: all commands as one program. Every error ends as a message and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Mapping

import click

from autolambda import __version__
from autolambda.cli import begin, followup, measure, merge, search, study
from autolambda.cli.arguments import turned
from autolambda.cli.output import INTERRUPTED
from autolambda.errors import AutolambdaError, InputError, SwappedError, error_line

SECTIONS: Mapping[str, tuple[click.Command, ...]] = {
    "Start": (begin.init, search.search, search.demo, begin.validate),
    "Look": (study.list_studies, study.status, study.report),
    "Use": (search.resume, search.confirm, followup.transfer, followup.check, merge.export, merge.merge),
    "Research": (measure.evaluate, measure.ablate, measure.stages, begin.schema),
}
"""The commands by what they are for, in the order of ``--help``."""

COMMANDS = tuple(command for commands in SECTIONS.values() for command in commands)


class _Sections(click.Group):
    """A group whose help lists the commands by section, each with the first sentence of its help."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        width = max(len(str(command.name)) for command in COMMANDS)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(str(each.name).ljust(width), each.get_short_help_str(limit=200)) for each in commands]
                formatter.write_dl(rows)


EPILOG = """\b
Tab completion (bash; zsh and fish alike):
  eval "$(_AUTOLAMBDA_COMPLETE=bash_source autolambda)"
"""


@click.group(cls=_Sections, commands=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autolambda")
def cli() -> None:
    """Finds the best merge of an Instruct and a Thinking model for your token budget.

    \b
    autolambda demo                                      two minutes on a laptop
    autolambda init INSTRUCT THINKING --task my.jsonl    writes autolambda.yaml
    autolambda search --budget 4000                      the best merge for it
    autolambda export NAME OUT                           its checkpoint folder
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
