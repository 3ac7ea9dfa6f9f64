"""`python -m sedtalker` is the command `sedtalker`."""

from sedtalker.cli.start import start

start()
