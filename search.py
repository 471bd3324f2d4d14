"""Search networks within a parameter budget: python search.py --budget 5e6 --trials 200."""

from nas.cli import main
from nas.cli.search import search

main(commands=[search], prog_name="search.py")
