"""Train a chosen network in full: python retrain.py --trial 42."""

from nas.cli import main
from nas.cli.retrain import retrain

main(commands=[retrain], prog_name="retrain.py")
