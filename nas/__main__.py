"""`nas`, `python -m nas`."""

try:
    from nas.cli import main
except KeyboardInterrupt:  # before any command runs
    raise SystemExit(130) from None

if __name__ == "__main__":
    main()
