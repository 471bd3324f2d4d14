"""Train a chosen network in full: python retrain.py --trial 42."""

try:
    from nas.cli import main
    from nas.cli.retrain import retrain
except KeyboardInterrupt:  # before any command runs
    raise SystemExit(130) from None

main(commands=[retrain], prog_name="retrain.py")
