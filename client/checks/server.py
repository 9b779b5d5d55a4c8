# SPDX-License-Identifier: Apache-2.0
"""The way to the server: whether it answers this site, is the right one, and has the same time."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from client.checks.finding import Finding, cross, tick

SERVER, CLOCK = "server", "clock"
TIMEOUT_S = 15.0
# Flower takes requests from 305 s ago to 5 s ahead; a Date is in whole seconds, so one of them is spared.
MOST_BEHIND_S, MOST_AHEAD_S = 304.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Door:
    """How this site reaches the server."""

    address: str
    authority: Path
    certificate: Path
    key: Path


def check_server(door: Door) -> Iterator[Finding]:
    """Ask the server how it is, as the SuperNode would reach it; its answer tells its time, too."""
    before = time.time()
    try:
        trust = ssl.create_default_context(cafile=door.authority)
        trust.load_cert_chain(door.certificate, door.key)
        with httpx.Client(verify=trust, timeout=TIMEOUT_S) as client:
            answer = client.get(f"https://{door.address}/health")
    except (httpx.HTTPError, OSError) as error:  # an OSError: keys that cannot be read, or do not fit
        yield _unreached(door.address, error) if isinstance(error, httpx.HTTPError) else _no_keys(error)
        yield cross(CLOCK, "not known: the server was not reached", "first mend the way to the server")
        return
    yield _answered(door.address, answer)
    yield _clock(answer, before=before, after=time.time())


def _no_keys(error: OSError) -> Finding:
    advice = "first mend the certificate and its key"
    return cross(SERVER, f"cannot be called with the kit's certificate and key ({error})", advice)


def _unreached(address: str, error: httpx.HTTPError) -> Finding:
    reason = _root(error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return cross(
            SERVER,
            f"{address} is not who it should be: {reason.verify_message}",
            "do not join; tell the coordinator. The address must be a name of the server's certificate",
        )
    if isinstance(reason, ssl.SSLError):
        return cross(
            SERVER,
            f"{address} refused the connection: {reason.reason or reason}",
            "the site's certificate may be revoked: ask the coordinator",
        )
    if isinstance(error, httpx.TimeoutException):
        advice = "ask your network's administrators to let this machine call that address and port"
        return cross(SERVER, f"{address} does not answer within {TIMEOUT_S:g} s", advice)
    return cross(
        SERVER,
        f"{address} cannot be reached: {reason}",
        "compare [server] address in site.toml with the coordinator's, and ask your network's administrators",
    )


def _answered(address: str, answer: httpx.Response) -> Finding:
    if answer.status_code == httpx.codes.OK:
        return tick(SERVER, f"{address} answers; both sides showed their certificates")
    if answer.status_code == httpx.codes.BAD_REQUEST:
        return cross(
            SERVER, f"{address} does not take this site's certificate", "ask the coordinator for a new kit"
        )
    if answer.status_code in (httpx.codes.BAD_GATEWAY, httpx.codes.GATEWAY_TIMEOUT):
        found = f"{address} answers, but Flower's SuperLink behind it does not run"
        return cross(SERVER, found, "the coordinator has not started it; check again later")
    return cross(SERVER, f"{address} answers {answer.status_code}", "tell the coordinator")


def _clock(answer: httpx.Response, *, before: float, after: float) -> Finding:
    told = answer.headers.get("date")
    if told is None:
        return cross(CLOCK, "the server's answer has no date", "tell the coordinator")
    server = parsedate_to_datetime(told).timestamp() + 0.5  # whole seconds: somewhere within this one
    ahead = (before + after) / 2 - server
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    if -MOST_BEHIND_S <= ahead <= MOST_AHEAD_S:
        return tick(CLOCK, f"this clock is {found}")
    advice = "let NTP set it (timedatectl set-ntp true); Flower takes 5 s ahead and 305 s behind"
    return cross(CLOCK, f"this clock is {found}", advice)


def _root(error: BaseException) -> BaseException:
    """Return what an error began with: httpx keeps it as the cause of the cause."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error
