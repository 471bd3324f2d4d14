"""The headline in pieces: search under 5M parameters on CIFAR-10, full trainings, on one GPU.

    python benchmarks/headline.py PIECE --work DIR --data DIR [--minutes 9] [--device cuda] [--tiny]

A piece is a list of ordinary commands of this tool, run in the folder `--work`; `PIECES` lists them
in order. `next` does what is left of all of them, in order; `status` only says what is left. Each
call ends about when its minutes are up: a command that is not finished is stopped by Ctrl-C's
signal, keeps all it did, and the next call goes on with it. What is finished is not run again.

`DIR/results` holds what is to publish: small files, and the report. For a machine that is lent,
`--pack OUT` leaves the work folder in OUT instead, as files of 15 MB at most (databases, results,
the newest checkpoint), also after each command, and `--unpack OUT` makes the work folder of them
where there is none yet.
`--short` is made for one call: a search of 6 trials, one seed of a short schedule, nothing that
tells networks apart. `--tiny` tries all of it on a CPU, on generated images. See docs/headline.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tarfile
import time
import zlib
from pathlib import Path

from headline_pieces import FULL, PIECES, SHORT, TINY
from headline_records import pack, unpack
from headline_session import Session

CLOSING_SECONDS = 45.0  # kept for the report, the tables and the packing


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("piece", choices=[*PIECES, "next", "status"])
    parser.add_argument("--work", type=Path, required=True, help="folder of everything it leaves")
    parser.add_argument("--data", type=Path, default=Path("studies/data"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--pack", type=Path, help="folder for a small copy, instead of tables")
    parser.add_argument("--unpack", type=Path, help="such a folder, to go on from it")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--short", action="store_true", help="what fits in one call")
    scale.add_argument("--tiny", action="store_true", help="try it on a CPU")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do a piece, or what is next."""
    deadline = time.monotonic() - CLOSING_SECONDS
    asked = parsed(argv)
    session = Session(
        TINY if asked.tiny else SHORT if asked.short else FULL,
        asked.work.resolve(),
        asked.data.resolve(),
        asked.device,
        deadline + 60 * asked.minutes,
        asked.pack,
    )
    if asked.unpack is not None:
        try:
            unpack(asked.unpack, session.work)
        except (FileNotFoundError, FileExistsError) as error:
            print(f"error: --unpack: {error}", file=sys.stderr)
            return 2
        except (EOFError, tarfile.TarError, zlib.error) as error:
            print(f"error: --unpack: damaged parts in {asked.unpack}: {error}", file=sys.stderr)
            return 2
    session.results.mkdir(parents=True, exist_ok=True)
    pieces = [asked.piece] if asked.piece in PIECES else list(session.scale.pieces)
    try:
        if asked.piece != "status" and session.to_try(pieces):
            session.require_usable()
            # Where they are ignored here, commands ignore them too, and could not be stopped.
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, lambda *_: session.stop())
            session.do(pieces)
    finally:
        if asked.pack is not None:
            pack(session.work, asked.pack)
    if asked.pack is None:
        session.close()
    session.show()
    return session.exit_code(pieces)


if __name__ == "__main__":
    sys.exit(main())
