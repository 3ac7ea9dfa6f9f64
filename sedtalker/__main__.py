"""`python -m sedtalker` is the command `sedtalker`."""

import sys

from sedtalker.cli.main import main

sys.exit(main())
