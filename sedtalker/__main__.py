"""`python -m sedtalker` is the command `sedtalker`."""

from sedtalker.cli.main import run_command

run_command()
