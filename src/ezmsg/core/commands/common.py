"""What the commands share: options, and a parser that complains in one line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from ezmsg.core.control import resolve
from ezmsg.core.net.address import Address


class OneLineParser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with code 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (--help tells more)\n")


if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[OneLineParser]  # pyright: ignore[reportPrivateUsage] - no other name


def graph_address_from_args(args: argparse.Namespace) -> Address:
    """The address of the GraphServer: `args.address`, else the default.

    Raises:
        ValueError: It is no address.
    """
    return resolve(args.address)


def address_option(address: Address) -> str:
    """What to add to a command so that it finds this address; nothing for the default."""
    return "" if address == resolve(None) else f" --address {address}"


def add_address_argument(parser: argparse.ArgumentParser, option: str = "--address") -> None:
    """Add the option for the address of the GraphServer."""
    parser.add_argument(
        option,
        metavar="HOST:PORT",
        type=_address,
        help="address of the GraphServer (default: EZMSG_GRAPHSERVER_ADDR, else 127.0.0.1:25978)",
    )


def add_compact_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for smaller drawings."""
    parser.add_argument(
        "-c",
        "--compact",
        action="count",
        help="leave out topics that messages only pass through, and draw units instead of their streams; "
        "again (-cc) draws the collections they are in, and so on",
    )


def _address(text: str) -> str:
    """The text as it is, if it is an address."""
    try:
        Address.from_string(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
