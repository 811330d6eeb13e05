"""Where webhooks may go: the guard against a receiver URL that points into our own network.

A URL is judged twice. Its form is checked once, when it is configured (`check_url`). Its addresses are checked at every
attempt, and the address that was checked is the one that is dialled: a name is resolved once per attempt
(`GuardedResolver`), and the socket itself is opened only after one more look at its address (`guarded_socket`).
"""

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

PORTS_ALLOWED = frozenset({443, 8443})
URL_CHARACTERS_MAX = 2048
ADDRESSES_MAX = 64
RESOLVER_THREADS = 64

# What `is_global` lets through, or judges differently from one Python release to the next.
_REFUSED_V4 = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    IPv4Network("168.63.129.16/32"),  # a cloud's metadata and control services, at a public address
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv4Network("240.0.0.0/4"),
)
# Only 2000::/3 is global unicast. That alone shuts out IPv4-mapped and IPv4-compatible addresses, NAT64, unique-local,
# link-local, site-local and multicast; these lie inside it.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = (
    IPv6Network("2001::/23"),  # Teredo, ORCHID, benchmarks
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address inside, which may be private
    IPv6Network("3fff::/20"),  # documentation
    IPv6Network("5f00::/16"),  # segment routing, when a network carries it
)
_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = IPv6Address("::1")

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\.?\Z){_LABEL}(\.{_LABEL})*\.?")
# A last label like this makes resolvers read the whole host as a number: 2130706433, 0x7f.1, 0177.0.0.1. No public
# suffix begins with a digit, so nothing is lost by refusing spellings that only some parser knows, such as 0o177.
_NUMERIC_LABEL = re.compile(r"[0-9].*")


class EgressRefused(OSError):
    """The guard does not let us call this URL or address. An OSError: HTTP clients then treat it as no connection."""


class Egress(Struct, frozen=True):
    """What a checked URL may reach."""

    url: URL
    literal: bool  # the host is an address, and was checked with the URL
    public: bool  # global unicast addresses
    loopback: bool  # 127.0.0.0/8 and ::1

    @property
    def host(self) -> str:
        """Name or address, as it is resolved or dialled."""
        return self.url.raw_host or ""

    @property
    def port(self) -> int:
        """Where it is dialled; never 0 once checked."""
        return self.url.port or 0

    def check(self, address: str) -> IPv4Address | IPv6Address:
        """The address, parsed, if we may dial it. Raises `EgressRefused`, which names the kind and not the address:
        the text is shown to whoever set the URL, and must not map our network for them."""
        try:
            parsed = ip_address(address)
        except ValueError:
            raise EgressRefused("the receiver's name leads to something that is no IP address") from None
        if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
            raise EgressRefused("the receiver's address carries an IPv6 zone")
        if _is_loopback(parsed):
            if not self.loopback:
                raise EgressRefused("the receiver's address is loopback; only the development setting allows that")
            return parsed
        if not _is_public(parsed):
            raise EgressRefused("the receiver's address is not public (private, reserved or translated)")
        if not self.public:
            raise EgressRefused("http and unusual ports are for loopback only; use https on port 443 or 8443")
        return parsed


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return address in _LOOPBACK_V4
    return address == _LOOPBACK_V6


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Global unicast, and not an address that hides another one."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _REFUSED_V6)


def check_url(text: str, *, allow_loopback: bool = False) -> Egress:
    """Judge a receiver URL by its form, literal addresses included; raises `EgressRefused`, never showing the URL.

    `allow_loopback` is for development: it adds loopback addresses, and for these alone http and any port. A URL that
    only this setting permits stays confined to loopback, so the setting opens nothing else if it is left on.
    """
    if len(text) > URL_CHARACTERS_MAX:
        raise EgressRefused(f"the receiver URL is longer than {URL_CHARACTERS_MAX} characters")
    # Parsers disagree about these; refusing them leaves one reading.
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise EgressRefused("the receiver URL holds a space, a backslash, or a character that is not printable ASCII")
    try:
        url = URL(text)  # the parser of the HTTP client itself, so that both see the same host
        port = url.port
    except ValueError:
        raise EgressRefused("the receiver URL cannot be read; give it as https://host/path") from None
    if url.scheme not in ("http", "https") or not url.raw_host or port is None or port == 0:
        raise EgressRefused("the receiver URL must look like https://host/path")
    if "@" in text.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]:
        raise EgressRefused("the receiver URL holds a user or password; remove the part before the @")
    usual = url.scheme == "https" and port in PORTS_ALLOWED
    if not usual and not allow_loopback:
        raise EgressRefused("the receiver URL must be https on port 443 or 8443")
    egress = Egress(url=url, literal=_literal(url.raw_host), public=usual, loopback=allow_loopback)
    if egress.literal:
        egress.check(egress.host)
    return egress


def _literal(host: str) -> bool:
    """Whether a URL's host is an address (True) or a name (False); raises `EgressRefused` when neither plainly."""
    if ":" in host:
        return True
    if _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2].lower()):
        try:
            IPv4Address(host)
        except ValueError:
            raise EgressRefused("the receiver URL writes an IPv4 address oddly; use four decimals") from None
        return True
    if not _NAME.fullmatch(host.lower()):
        raise EgressRefused("the receiver URL's host is not a DNS name")
    return False


class SpareThreadsResolver(AbstractResolver):
    """Asks the operating system, on threads of its own: a name whose servers do not answer holds a thread for as long
    as the system waits, and the event loop's few threads serve everybody."""

    def __init__(self, threads: int = RESOLVER_THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of `host`, unvetted; raises `socket.gaierror`."""
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(hostname=host, host=_with_zone(address), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Wait for nobody: a look-up under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _with_zone(address: tuple[Any, ...]) -> str:
    """A zone stays visible, so that the guard can refuse it."""
    zone = address[3] if len(address) == 4 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])


class GuardedResolver(AbstractResolver):
    """Resolves through another resolver, and answers only if *every* address may be dialled.

    One refused address refuses them all: a name that mixes public and private answers is an attack, or a mistake."""

    def __init__(self, egress: Egress, inner: AbstractResolver) -> None:
        self._egress = egress
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of `host`, all vetted; raises `EgressRefused`, or what the inner resolver raises."""
        answers = await self._inner.resolve(host, port, family)
        if not answers:
            raise EgressRefused("the receiver's name has no address")
        if len(answers) > ADDRESSES_MAX:
            raise EgressRefused(f"the receiver's name has more than {ADDRESSES_MAX} addresses")
        vetted: list[ResolveResult] = []
        for answer in answers:
            address = self._egress.check(answer["host"])
            vetted.append(
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,  # the URL's; an inner resolver has no say in it
                    family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    proto=answer["proto"],
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return vetted

    async def close(self) -> None:
        await self._inner.close()


def guarded_socket(egress: Egress, address_info: tuple[Any, ...]) -> socket.socket:
    """A socket for one `getaddrinfo` entry, if its address may be dialled; raises `EgressRefused`.

    The last look before connect. It also sees literal addresses, for which the HTTP client asks no resolver."""
    family, kind, protocol, _, address = address_info
    egress.check(str(address[0]))
    if len(address) == 4 and address[3]:
        raise EgressRefused("the receiver's address carries an IPv6 zone")
    return socket.socket(family=family, type=kind, proto=protocol)
