"""The egress guard: forms of URLs, kinds of addresses, and names that change their mind."""

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.egress import ADDRESSES_MAX, EgressRefused, GuardedResolver, check_url, guarded_socket

GLOBAL_V4 = "93.184.215.14"
GLOBAL_V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


class ScriptedResolver(AbstractResolver):
    """Answers one list of addresses per call, in order."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=6379, family=socket.AF_UNSPEC, proto=6, flags=0)
            for address in self._answers.pop(0)
        ]

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/alerts",
        "https://hooks.example.com:8443/alerts?token=1",
        "https://hooks.example.com./",
        "https://xn--bcher-kva.example/",
        f"https://{GLOBAL_V4}/",
        f"https://[{GLOBAL_V6}]/",
        "https://hooks.example.com/a@b",
    ],
)
def test_public_https_urls_pass(url: str) -> None:
    assert str(check_url(url).url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://",
        "https:///alerts",
        "https://hooks.example.com:22/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://user@hooks.example.com/",
        "https://user:password@hooks.example.com/",
        "https://@hooks.example.com/",
        "https://hooks.example.com\\@internal/",
        "https://hooks.example.com/\r\nHost: internal",
        "https://hooks example.com/",
        "https://hooks.ex%61mple.com/",
        "https://-hooks.example.com/",
        "https://" + "a" * 64 + ".example.com/",
        "https://hooks.example.com/" + "a" * 2048,
        # Digits of another script that fold to 127.0.0.1.
        "https://\uff11\uff12\uff17.0.0.1/",
    ],
)
def test_other_forms_are_refused(url: str) -> None:
    with pytest.raises(EgressRefused):
        check_url(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.0x1",
        "1.1.1",
        "1.1.1.1.1",
        "256.1.1.1",
        "010.8.8.8",
        "0",
        "[::1]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        f"[{GLOBAL_V6}%25eth0]",
        "[::ffff:93.184.215.14]",
        "[::ffff:7f00:1]",
        "[::]",
        "169.254.169.254",
        "10.0.0.1",
    ],
)
@pytest.mark.parametrize("allow_loopback", [False, True])
def test_literal_addresses_are_judged_at_once(host: str, allow_loopback: bool) -> None:
    if allow_loopback and host in ("127.0.0.1", "[::1]"):
        check_url(f"https://{host}/", allow_loopback=True)
        return
    with pytest.raises(EgressRefused):
        check_url(f"https://{host}/", allow_loopback=allow_loopback)


@pytest.mark.parametrize("address", [GLOBAL_V4, "1.1.1.1", "8.8.8.8", GLOBAL_V6, "2a00:1450:4001:81b::200e"])
def test_global_unicast_addresses_pass(address: str) -> None:
    assert str(check_url("https://hooks.example.com/").check(address)) == address


REFUSED_ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",  # carrier-grade NAT
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",  # the metadata service of clouds
    "172.16.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::a00:1",  # NAT64 of 10.0.0.1
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:a00:1::1",  # 6to4 of 10.0.0.1
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    f"{GLOBAL_V6}%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "not an address",
    "127.1",
]


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(EgressRefused) as refusal:
        check_url("https://hooks.example.com/").check(address)
    assert address not in str(refusal.value)


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_the_development_setting_opens_loopback_and_nothing_else(address: str) -> None:
    egress = check_url("http://hooks.example.com:8080/", allow_loopback=True)
    if address in ("127.0.0.1", "127.255.255.254", "::1"):
        assert str(egress.check(address)) == address
    else:
        with pytest.raises(EgressRefused):
            egress.check(address)


@pytest.mark.parametrize("url", ["http://hooks.example.com/", "https://hooks.example.com:9000/"])
def test_what_only_the_development_setting_permits_stays_on_loopback(url: str) -> None:
    with pytest.raises(EgressRefused):
        check_url(url, allow_loopback=True).check(GLOBAL_V4)
    check_url("https://hooks.example.com/", allow_loopback=True).check(GLOBAL_V4)


async def test_the_resolver_hands_on_the_vetted_addresses_with_the_urls_port() -> None:
    inner = ScriptedResolver([GLOBAL_V4, GLOBAL_V6])
    resolver = GuardedResolver(check_url("https://hooks.example.com/"), inner)
    results = await resolver.resolve("hooks.example.com", 443)
    assert [(each["host"], each["port"], each["family"]) for each in results] == [
        (GLOBAL_V4, 443, socket.AF_INET),
        (GLOBAL_V6, 443, socket.AF_INET6),
    ]
    assert all(each["flags"] & socket.AI_NUMERICHOST for each in results)
    assert inner.asked == ["hooks.example.com"]


@pytest.mark.parametrize("answers", [[GLOBAL_V4, "10.0.0.1"], ["10.0.0.1", GLOBAL_V4], [GLOBAL_V4, GLOBAL_V6, "::1"]])
async def test_one_private_address_among_public_ones_refuses_the_name(answers: list[str]) -> None:
    resolver = GuardedResolver(check_url("https://hooks.example.com/"), ScriptedResolver(answers))
    with pytest.raises(EgressRefused):
        await resolver.resolve("hooks.example.com", 443)


async def test_a_name_that_turns_private_is_refused_at_the_next_look() -> None:
    resolver = GuardedResolver(check_url("https://hooks.example.com/"), ScriptedResolver([GLOBAL_V4], ["127.0.0.1"]))
    assert [each["host"] for each in await resolver.resolve("hooks.example.com", 443)] == [GLOBAL_V4]
    with pytest.raises(EgressRefused):
        await resolver.resolve("hooks.example.com", 443)


@pytest.mark.parametrize("answers", [[], [GLOBAL_V4] * (ADDRESSES_MAX + 1)])
async def test_no_address_and_too_many_addresses_are_refused(answers: list[str]) -> None:
    resolver = GuardedResolver(check_url("https://hooks.example.com/"), ScriptedResolver(answers))
    with pytest.raises(EgressRefused):
        await resolver.resolve("hooks.example.com", 443)


def test_a_socket_is_opened_only_for_an_address_that_may_be_dialled() -> None:
    egress = check_url("https://hooks.example.com/")
    with guarded_socket(egress, (socket.AF_INET, socket.SOCK_STREAM, 6, "", (GLOBAL_V4, 443))) as opened:
        assert opened.family == socket.AF_INET
    for refused in [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 443, 0, 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (GLOBAL_V6, 443, 0, 2)),
    ]:
        with pytest.raises(EgressRefused):
            guarded_socket(egress, refused)
