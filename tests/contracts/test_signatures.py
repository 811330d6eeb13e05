"""What we send is what the public libraries of Standard Webhooks verify, in Python and in JavaScript.

Every message here was sent by the product's own caller and caught by a real listener. Node's library is installed once,
pinned with hashes, into this user's cache; where there is no Node, its half is skipped with the reason."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from actors.endpoints import new_secret
from actors.webhooks import WebhookCaller
from config.stack.kafka import default_cache_dir
from tests.simulation.hand_clock import HandClock

NODE_FILES = Path(__file__).parent / "node"
TOLERANCE_S = 300
BODIES = [
    b'{"type":"alert.crossed","data":{"account":"acme","value":"100.00"}}',
    '{"account":"Büro \U0001f4a1","text":"quotes \\" and \\n"}'.encode(),
    b'{ "spaces" :  [1,2 , 3] }',
    b"{}",
]


class Message(msgspec.Struct):
    """A message as a receiver has it, and the secret it checks with."""

    secret: str
    headers: dict[str, str]
    body: bytes  # msgspec writes it as base64


Verify = Callable[[Sequence[Message]], list[bool]]
Send = Callable[..., Any]


def python_verdicts(messages: Sequence[Message]) -> list[bool]:
    def verdict(message: Message) -> bool:
        try:
            Webhook(message.secret).verify(message.body, message.headers)
        except (WebhookVerificationError, ValueError):
            return False
        return True

    return [verdict(message) for message in messages]


@pytest.fixture(scope="module")
def node_library() -> Path:
    """The folder into which Node's library is installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("NO NODE HERE: the JavaScript library has not verified our signatures; install node and npm")
    lock = (NODE_FILES / "package-lock.json").read_bytes()
    version = json.loads(lock)["packages"]["node_modules/standardwebhooks"]["version"]
    folder = default_cache_dir() / "node" / f"standardwebhooks-{version}"
    if (folder / "package-lock.json").exists() and (folder / "package-lock.json").read_bytes() == lock:
        return folder
    making = folder.with_name(f"{folder.name}.{os.getpid()}")
    making.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE_FILES / name, making / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=making, capture_output=True, text=True, timeout=150, check=False)
    if done.returncode != 0:
        shutil.rmtree(making)
        pytest.skip(f"NPM FAILED: the JavaScript library has not verified our signatures: {done.stderr[-500:]}")
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
    return folder


@pytest.fixture(params=["python", "javascript"])
def verify(request: pytest.FixtureRequest) -> Verify:
    if request.param == "python":
        return python_verdicts
    folder: Path = request.getfixturevalue("node_library")

    def javascript_verdicts(messages: Sequence[Message]) -> list[bool]:
        done = subprocess.run(
            ["node", str(NODE_FILES / "verify.cjs")],
            input=msgspec.json.encode(messages),
            env={"NODE_PATH": str(folder / "node_modules"), "PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=60,
            check=True,
        )
        verdicts: list[bool] = json.loads(done.stdout)
        return verdicts

    return javascript_verdicts


@pytest.fixture
async def send() -> AsyncIterator[Send]:
    """Send a body, signed with some secrets at some time; as the listener has it."""
    seen: list[tuple[dict[str, str], bytes]] = []

    async def take(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"

    async def send(secrets: Sequence[str], body: bytes = BODIES[0], late_s: int = 0) -> Message:
        caller = WebhookCaller(HandClock((int(time.time()) - late_s) * 1_000_000), allow_loopback=True)
        answer = await caller.call(url, secrets, "alert_0123456789abcdef", body)
        await caller.stop()
        assert answer.attempt.delivered
        headers, caught = seen.pop()
        return Message(secrets[0], headers, caught)

    yield send
    await runner.cleanup()


def secret() -> str:
    return new_secret().get_secret_value()


async def test_every_body_is_verified_as_it_was_sent(send: Send, verify: Verify) -> None:
    messages = [await send([secret()], body) for body in BODIES]
    assert [message.body for message in messages] == BODIES
    assert verify(messages) == [True] * len(BODIES)


async def test_nothing_may_be_changed_on_the_way(send: Send, verify: Verify) -> None:
    good: Message = await send([secret()])

    def changed(body: bytes | None = None, key: str | None = None, **headers: str) -> Message:
        named = {f"webhook-{name}": value for name, value in headers.items()}
        return Message(key or good.secret, good.headers | named, good.body if body is None else body)

    at, signature = good.headers["webhook-timestamp"], good.headers["webhook-signature"]
    raw = bytearray(base64.b64decode(signature.removeprefix("v1,")))
    raw[0] ^= 1
    forged = [
        changed(id="alert_0123456789abcdee"),
        changed(id=""),
        changed(timestamp=str(int(at) + 1)),
        changed(timestamp=str(int(at) - 1)),
        changed(timestamp=""),
        changed(signature="v1," + base64.b64encode(bytes(raw)).decode()),
        changed(signature="v2," + signature.removeprefix("v1,")),
        changed(signature=signature[:-8]),
        changed(signature=""),
        changed(body=good.body + b" "),
        changed(body=good.body.replace(b"100", b"900")),
        changed(body=b""),
        changed(key=secret()),
    ]
    assert verify([good]) == [True]
    assert verify(forged) == [False] * len(forged)


async def test_a_message_is_good_for_minutes_and_not_for_longer(send: Send, verify: Verify) -> None:
    key = secret()
    messages = [await send([key], late_s=late_s) for late_s in (TOLERANCE_S - 60, TOLERANCE_S + 60, -TOLERANCE_S - 60)]
    assert verify(messages) == [True, False, False]


async def test_while_a_secret_is_rotated_the_old_and_the_new_one_verify(send: Send, verify: Verify) -> None:
    old, new = secret(), secret()
    sent: Message = await send([new, old])
    both = [Message(key, sent.headers, sent.body) for key in (new, old)]
    assert verify([*both, Message(secret(), sent.headers, sent.body)]) == [True, True, False]
    after: Message = await send([new])
    assert verify([after, Message(old, after.headers, after.body)]) == [True, False]
