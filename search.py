"""Search networks within a parameter budget: python search.py --budget 5e6 --trials 200."""

try:
    from nas.cli import main
    from nas.cli.search import search
except KeyboardInterrupt:  # before any command runs
    raise SystemExit(130) from None

main(commands=[search], prog_name="search.py")
