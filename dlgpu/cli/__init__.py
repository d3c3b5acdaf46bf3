"""The command `dlgpu`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import dlgpu
from dlgpu.cli.doctor import report
from dlgpu.cli.programs import PROGRAMS
from dlgpu.cli.train import prepare, run
from dlgpu.cli.userdata import HELP


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 2 for a wrong command line, 130 after Ctrl-C."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 2
    if arguments.command == "doctor":
        print(report())
        return 0
    try:
        tasks = prepare(arguments)
    except (ValueError, TypeError, OSError, dlgpu.DeviceError) as error:
        print(f"dlgpu train: error: {error}", file=sys.stderr)
        return 2
    return run(tasks, arguments)


def _parser() -> Parser:
    parser = Parser(prog="dlgpu", description=dlgpu.__doc__)
    parser.add_argument("--version", action="version", version=f"dlgpu {dlgpu.__version__}")
    commands: Any = parser.add_subparsers(dest="command", metavar="train|doctor", parser_class=Parser)
    commands.add_parser("doctor", help="say which devices work, and what to install for the others")
    train = commands.add_parser(
        "train",
        help="train all four networks, or one, on real data",
        description="Train networks on real data that come with dlgpu, or one on your own; end with test scores.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("name", nargs="?", choices=PROGRAMS, help="the network: all four, one after another, by default")
    train.add_argument("--epochs", type=_positive, metavar="N", help="passes over the data")
    train.add_argument("--batch-size", type=_positive, metavar="N", help="samples in a step")
    train.add_argument("--device", metavar="D", help="cpu, cuda or cuda:1; by default the best one that works")
    train.add_argument("--seed", type=_seed, default=0, metavar="N", help="0 by default: every run gives the same")
    train.add_argument(
        "--save",
        metavar="FILE",
        help="FILE.dlgpu for models, FILE.safetensors for weights; of four: FILE-fnn.dlgpu ...",
    )
    train.add_argument("--plot", metavar="FILE.png", help="draw loss and score of each epoch")
    train.add_argument("--data", metavar="FILE", help="train on your own .npz or .csv file; see below")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2**64 - 1, got {text!r}")
    return int(text)
