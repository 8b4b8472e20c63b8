"""`python -m failscape`: the command line, also for `torchrun -m failscape`."""

import sys

from failscape.cli import main

if __name__ == "__main__":
    sys.exit(main())
