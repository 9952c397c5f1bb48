"""The ``crane`` command."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from crane import __version__, terminal
from crane.errors import CraneError

# A command's module is imported when the command is used, so that the quick
# ones stay quick.
_COMMANDS = {
    "bench": "crane.cli.bench",
    "chaos": "crane.cli.chaos",
    "checkpoint": "crane.cli.checkpoint",
    "doctor": "crane.cli.doctor",
    "files": "crane.cli.files",
    "init": "crane.cli.init",
    "kill": "crane.cli.control",
    "list": "crane.cli.show",
    "logs": "crane.cli.show",
    "member": "crane.cli.member",
    "node": "crane.cli.node",
    "pause": "crane.cli.control",
    "restart": "crane.cli.control",
    "resume": "crane.cli.control",
    "run": "crane.cli.run",
    "signal": "crane.cli.control",
    "status": "crane.cli.show",
    "stop": "crane.cli.control",
    "transfer": "crane.cli.member",
    "verify": "crane.cli.verify",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), f"{cmd_name}_command")
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crane", message="%(prog)s %(version)s")
def crane() -> None:
    """Make an unmodified Linux server highly available."""


def main() -> NoReturn:
    """Run the command line; every error is one line and an exit code."""
    try:
        code = crane.main(standalone_mode=False)
    except NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "crane"
        message = " ".join(error.format_message().split()).rstrip(".")
        terminal.error(f"{message}; `{where} --help` lists what there is")
        sys.exit(2)
    except click.ClickException as error:
        terminal.error(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it, so do not flush it
        sys.exit(141)
    except CraneError as error:
        terminal.error(str(error))
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
