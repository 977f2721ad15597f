"""`python -m fedsparse` is the command `fedsparse`."""

import sys

from fedsparse.cli import main

if __name__ == "__main__":
    sys.exit(main())
