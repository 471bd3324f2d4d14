"""Search networks within a parameter budget: python search.py --budget 5e6 --trials 200."""

import sys

from nas.cli import main

main(["search", *sys.argv[1:]], prog_name="search.py")
