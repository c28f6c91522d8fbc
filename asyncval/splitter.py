"""`python -m asyncval.splitter`: the first Asyncval's spelling of `asyncval split`."""

import sys

from asyncval.cli import main

if __name__ == "__main__":
    sys.exit(main(["split", *sys.argv[1:]]))
