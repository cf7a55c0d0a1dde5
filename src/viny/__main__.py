"""`python -m viny` is `viny`."""

import sys

from viny.cli import main

if __name__ == "__main__":
    sys.exit(main())
