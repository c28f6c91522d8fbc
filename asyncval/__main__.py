"""`python -m asyncval`: the commands, and the first Asyncval's spelling of `watch`."""

import sys

from asyncval.cli import main

sys.exit(main())
