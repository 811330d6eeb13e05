"""Hundreds of webhook targets that lead inside, against registration and delivery: not one connection is begun.

What counts is what the interpreter is asked to do, not what our code says: an audit hook sees every connect and every
name look-up of this process, at the socket module itself, and real listeners on loopback wait for a visit."""

import asyncio
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

import actors.egress
from actors.egress import ADDRESSES_MAX, Egress
from actors.endpoints import EndpointRefused, PostgresEndpoints, new_secret
from actors.webhooks import WebhookCaller
from tests.simulation.hand_clock import HandClock

TRAP_PORT = 8443  # one that the guard lets https use
PUBLIC_V4 = "93.184.215.14"
PUBLIC_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
NAME = "hooks.example.com"

INSIDE_V4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.254",
    "100.64.0.1",  # carrier-grade NAT
    "100.100.100.200",  # metadata of a cloud, inside that range
    "127.0.0.1",
    "127.0.0.53",
    "127.255.255.254",
    "168.63.129.16",  # metadata of a cloud, at a public address
    "169.254.0.1",
    "169.254.169.253",
    "169.254.169.254",  # metadata of most clouds
    "169.254.170.2",  # credentials of a cloud's containers
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",  # metadata of a cloud
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.254",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
INSIDE_V6 = [
    "::",
    "::1",
    "::2",
    "100::1",
    "64:ff9b::1",
    "64:ff9b:1::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata of a cloud
    "fd20:ce::254",  # metadata of a cloud
    "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "fec0::1",
    "ff01::1",
    "ff02::1",
    "ff05::2",
    "ff0e::1",
]
SPELLED_V4 = ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "168.63.129.16"]


def v6_around(address: str) -> Iterator[str]:
    """IPv6 addresses that carry an IPv4 address inside."""
    number = int(ipaddress.IPv4Address(address))
    for prefix, shift in (
        ("::ffff:0:0", 0),  # mapped
        ("::", 0),  # compatible
        ("::ffff:0:0:0", 0),  # translated
        ("64:ff9b::", 0),  # NAT64
        ("64:ff9b:1::", 0),
        ("2002::", 80),  # 6to4
        ("fe80::5efe:0:0", 0),  # ISATAP
    ):
        yield str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number << shift))
    yield str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("2001::")) | (number ^ 0xFFFFFFFF)))  # Teredo


def v4_spelled(address: str) -> Iterator[str]:
    """Ways to write an IPv4 address that one parser or another understands."""
    number = int(ipaddress.IPv4Address(address))
    first, second, third, fourth = address.split(".")
    parts = [int(part) for part in address.split(".")]
    yield address
    yield address + "."
    yield str(number)
    yield str(number + 2**32)
    yield oct(number).replace("0o", "0")
    yield oct(number)
    yield hex(number)
    yield hex(number).upper()
    yield "0x" + "0" * 20 + hex(number)[2:]
    yield ".".join(f"0{part:o}" for part in parts)
    yield ".".join(f"{part:03d}" for part in parts)
    yield ".".join(hex(part) for part in parts)
    yield f"{first}.{hex(parts[1])}.{parts[2]:#o}.{fourth}"
    yield f"{first}.{number & 0xFFFFFF}"
    yield f"{first}.{second}.{number & 0xFFFF}"
    yield f"{parts[0] + 256}.{second}.{third}.{fourth}"
    yield address.replace(".", "..")
    yield address.replace(".", "%2e")
    yield address.replace(".", "\u3002")
    yield "".join(chr(0xFF10 + int(letter)) if letter.isdigit() else letter for letter in address)
    yield "".join(chr(0x660 + int(letter)) if letter.isdigit() else letter for letter in address)
    yield f"[{address}]"
    yield f"[::ffff:{address}]"
    yield f"[::{address}]"
    yield f"%31{address[1:]}"
    yield f"{address}%00.{NAME}"
    yield f"{NAME}@{address}"
    yield f"{NAME}:443@{address}"
    yield f"user:password@{address}"
    yield f"{address}\\@{NAME}"
    yield f"{address}\t"
    yield f" {address}"
    yield f"{address}\r\nHost: {NAME}"


def hostile_urls() -> list[str]:
    """URLs whose form alone says that they must not be called."""
    hosts = [*INSIDE_V4, *(f"[{address}]" for address in INSIDE_V6)]
    hosts += [f"[{around}]" for address in INSIDE_V4[::3] for around in v6_around(address)]
    hosts += [spelled for address in SPELLED_V4 for spelled in v4_spelled(address)]
    hosts += [f"[{address}%25{zone}]" for address in ("::1", "fe80::1", PUBLIC_V6) for zone in ("lo", "1", "eth0")]
    hosts += ["[::1", "::1", "[::1]x", "[0:0:0:0:0:0:0:1]", "[::0001]", "[0:0::0:1%lo]", "[v1.127.0.0.1]", "[]"]
    hosts += [
        "",
        ".",
        "..",
        "-",
        "*",
        "%",
        "127.0.0.1/",
        "\u2488\u2488",
        "\u24d4xample.com",
        "a" * 64,
        "x." * 130 + "x",
    ]
    urls = [f"https://{host}:{TRAP_PORT}/" for host in hosts] + [f"https://{host}/" for host in SPELLED_V4]
    schemes = ["http", "ftp", "file", "gopher", "dict", "ldap", "ws", "wss", "unix", "jar", "data", "javascript", ""]
    urls += [f"{scheme}://{host}:{TRAP_PORT}/" for scheme in schemes for host in ("127.0.0.1", NAME)]
    urls += [
        "//127.0.0.1/",
        "127.0.0.1",
        "localhost:8443",
        "https:127.0.0.1",
        "https:/127.0.0.1/",
        "https:\\\\127.0.0.1",
    ]
    urls += [
        f"https://{NAME}:{port}/"
        for port in (0, 1, 22, 25, 80, 5432, 6379, 8080, 9092, 65535, 65536, -1, "4\u0664", "x")
    ]
    urls += ["file:///etc/passwd", "unix:///run/docker.sock", "data:text/plain,x", "https://\u0661\u0662\u0667.0.0.1/"]
    return urls


def inside_addresses() -> list[str]:
    """Addresses that a name must not lead to."""
    around = [each for address in INSIDE_V4[::2] for each in v6_around(address)]
    zones = ["fe80::1%lo", "::1%lo", f"{PUBLIC_V6}%1"]
    return [*INSIDE_V4, *INSIDE_V6, *around, *zones, "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "", "localhost"]


def hostile_answers() -> list[list[str]]:
    """What the servers of a hostile name may answer."""
    inside = inside_addresses()
    mixed = [[PUBLIC_V4, address] for address in inside[::4]] + [[address, PUBLIC_V6] for address in inside[1::4]]
    return [*([address] for address in inside), *mixed, [PUBLIC_V4] * (ADDRESSES_MAX + 1)]


class Answers(AbstractResolver):
    """Servers of a name under an attacker's control: one answer per question, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_UNSPEC, proto=6, flags=0)
            for address in answer
        ]

    async def close(self) -> None:
        return None


class Watch:
    """What this process was asked to connect to or to look up."""

    def __init__(self) -> None:
        self.on = False
        self.dialled: list[str] = []
        self.looked_up: list[object] = []

    def see(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on or not event.startswith("socket."):
            return
        if event == "socket.getaddrinfo":
            self.looked_up.append(arguments[0])
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            address = str(arguments[1][0])
            self.dialled.append(address)
            if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
                raise ConnectionRefusedError("no test leaves this machine")


WATCH = Watch()
sys.addaudithook(WATCH.see)


class Traps:
    """Listeners on loopback, of both families, that should be visited by nobody."""

    def __init__(self) -> None:
        self.visits = 0
        self.listening: list[str] = []
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for address in ("127.0.0.1", "::1"):
            try:
                self._servers.append(await asyncio.start_server(self._visit, address, TRAP_PORT))
            except OSError:
                continue  # no IPv6 here, or the port is another's: the audit hook still sees who would come
            self.listening.append(address)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


@pytest.fixture
async def traps() -> AsyncIterator[Traps]:
    made = Traps()
    await made.start()
    WATCH.dialled.clear()
    WATCH.looked_up.clear()
    WATCH.on = True
    yield made
    WATCH.on = False
    await made.stop()


def registration(resolver: AbstractResolver, *, allow_loopback: bool = False) -> PostgresEndpoints:
    """Without a database: what passes the vetting ends in another error than a refusal."""
    return PostgresEndpoints("", "tallygate", bytes(32), allow_loopback=allow_loopback, resolver=resolver)


async def is_refused_when_registered(url: str, answers: list[str], *, allow_loopback: bool = False) -> None:
    with pytest.raises(EndpointRefused) as refusal:
        await registration(Answers(answers), allow_loopback=allow_loopback).create(url, None, None)
    assert refusal.value.field == "url"


async def is_not_delivered(url: str, resolver: AbstractResolver, *, allow_loopback: bool = False) -> str:
    caller = WebhookCaller(HandClock(), allow_loopback=allow_loopback, timeout_s=5.0, resolver=resolver)
    answer = await caller.call(url, [new_secret().get_secret_value()], "alert_1", b"{}")
    await caller.stop()
    assert not answer.attempt.delivered
    assert answer.status is None
    return answer.attempt.error


def test_there_are_hundreds_of_them() -> None:
    assert len(set(hostile_urls())) >= 300
    assert len({tuple(answer) for answer in hostile_answers()}) >= 200


async def test_urls_that_lead_inside_are_refused_and_never_dialled(traps: Traps) -> None:
    for url in hostile_urls():
        await is_refused_when_registered(url, [PUBLIC_V4])
        error = await is_not_delivered(url, Answers([PUBLIC_V4]))
        assert error.startswith("refused by the egress guard"), url
    await asyncio.sleep(0)
    assert (WATCH.dialled, WATCH.looked_up, traps.visits) == ([], [], 0)


async def test_names_that_lead_inside_are_refused_and_never_dialled(traps: Traps) -> None:
    names = [
        NAME,
        "localhost",
        "LOCALHOST.",
        "metadata.google.internal",
        "127.0.0.1.nip.example",
        "kubernetes.default.svc",
    ]
    for number, answer in enumerate(hostile_answers()):
        url = f"https://{names[number % len(names)]}:{TRAP_PORT}/"
        await is_refused_when_registered(url, answer)
        error = await is_not_delivered(url, Answers(answer))
        assert error.startswith("refused by the egress guard"), answer
    await asyncio.sleep(0)
    assert (WATCH.dialled, WATCH.looked_up, traps.visits) == ([], [], 0)


async def test_the_development_setting_opens_loopback_and_nothing_else(traps: Traps) -> None:
    """Every target again, http and odd ports too: whatever is dialled is loopback, by an address the URL stands for."""
    for url in hostile_urls():
        caller = WebhookCaller(HandClock(), allow_loopback=True, timeout_s=5.0, resolver=Answers(["10.0.0.1"]))
        await caller.call(url, [new_secret().get_secret_value()], "alert_1", b"{}")
    for answer in hostile_answers():
        caller = WebhookCaller(HandClock(), allow_loopback=True, timeout_s=5.0, resolver=Answers(answer))
        await caller.call(f"http://{NAME}:{TRAP_PORT}/", [new_secret().get_secret_value()], "alert_1", b"{}")
    assert WATCH.dialled
    assert all(ipaddress.ip_address(address).is_loopback for address in WATCH.dialled)
    assert WATCH.looked_up == []


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fd00:ec2::254"]
)
async def test_a_name_that_changes_its_mind_after_it_was_vetted_gains_nothing(traps: Traps, inside: str) -> None:
    url = f"https://{NAME}:{TRAP_PORT}/"
    # At registration public, at delivery inside.
    resolver = Answers([PUBLIC_V4], [inside])
    with pytest.raises(Exception, match="not started"):
        await registration(resolver).create(url, None, None)
    assert (await is_not_delivered(url, resolver)).startswith("refused by the egress guard")
    assert WATCH.dialled == []
    # Public when it is looked up, inside at every later question: there is no later question before the connect.
    resolver = Answers([PUBLIC_V4, PUBLIC_V6], [inside])
    assert (await is_not_delivered(url, resolver)).startswith("could not connect")
    assert resolver.asked == 1
    assert set(WATCH.dialled) == {PUBLIC_V4, PUBLIC_V6}
    assert (WATCH.looked_up, traps.visits) == ([], 0)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
async def test_a_redirect_leads_nowhere(traps: Traps, status: int) -> None:
    targets = [
        f"http://127.0.0.1:{TRAP_PORT}/",
        f"https://[::1]:{TRAP_PORT}/",
        "http://169.254.169.254/",
        "//10.0.0.1/",
    ]
    targets += [
        f"http://localhost:{TRAP_PORT}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "/again",
        f"https://{NAME}/",
    ]
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        target = targets[len(asked) - 1]
        return web.Response(status=status, headers={"Location": target, "Refresh": f"0; url={target}", "Link": target})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    caller = WebhookCaller(HandClock(), allow_loopback=True, timeout_s=5.0, resolver=Answers(["127.0.0.1"]))
    WATCH.dialled.clear()
    for _ in targets:
        answer = await caller.call(url, [new_secret().get_secret_value()], "alert_1", b"{}")
        assert (answer.attempt.delivered, answer.status) == (False, status)
    await runner.cleanup()
    assert asked == ["/hook"] * len(targets)
    assert WATCH.dialled == ["127.0.0.1"] * len(targets)
    assert (WATCH.looked_up, traps.visits) == ([], 0)


async def test_proxies_of_the_environment_lead_nowhere(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{TRAP_PORT}")
    await is_not_delivered(f"https://{NAME}/", Answers([PUBLIC_V4]))
    assert WATCH.dialled == [PUBLIC_V4]
    assert traps.visits == 0


async def test_without_the_guard_the_traps_are_visited(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the tests above can fail: hook and listeners see a visit as soon as addresses are not judged."""
    monkeypatch.setattr(Egress, "check", lambda self, address: ipaddress.ip_address(address))
    monkeypatch.setattr(actors.egress, "_is_public", lambda address: True)
    for address in ("127.0.0.1", "::1"):
        host = f"[{address}]" if ":" in address else address
        await is_not_delivered(f"https://{host}:{TRAP_PORT}/", Answers([PUBLIC_V4]))
        await is_not_delivered(f"https://{NAME}:{TRAP_PORT}/", Answers([address]))
    assert WATCH.dialled == ["127.0.0.1"] * 2 + ["::1"] * 2
    assert traps.visits == 2 * len(traps.listening)
