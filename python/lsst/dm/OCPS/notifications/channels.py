# SPDX-License-Identifier: GPL-3.0-or-later
"""How notifications are sent: to a webhook, or by e-mail."""

from __future__ import annotations

__all__ = ["AwayError", "Channel", "MailChannel", "RefusedError", "WebhookChannel", "make_channels"]

import asyncio
import base64
import binascii
import fnmatch
import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import aiosmtplib

from ..config import ConfigError, MailConfig, NotificationRule, NotificationsConfig, WebhookConfig
from ..private_files import read_private_file
from ..version import __version__
from .message import mail

TIMEOUT = 30.0
"""How long (s) one attempt to deliver a notification may take."""

SECRET_PREFIX = "whsec_"
SHORTEST_SECRET = 24
"""Prefix and least length (bytes) of the secret of webhooks, as in Standard Webhooks."""

PASSING = frozenset({408, 425, 429})
"""HTTP statuses below 500 after which delivery is tried again."""


class AwayError(Exception):
    """The receiver cannot be reached, or asks for another attempt."""


class RefusedError(Exception):
    """The receiver refuses this notification for good."""


class Channel(Protocol):
    """A receiver of notifications."""

    name: str
    """The receiver's name in messages, without secrets."""

    async def send(self, notification_id: str, document: dict[str, Any]) -> None:
        """Deliver a notification.

        Raises
        ------
        AwayError
            If it should be tried again.
        RefusedError
            If the receiver will never accept it.
        """

    async def close(self) -> None:
        """Release all resources."""


class WebhookChannel:
    """Posts notifications to a URL, signed as Standard Webhooks describes it.

    Parameters
    ----------
    url : `str`
        The URL.
    secret : `bytes`
        The key of the signatures.
    """

    def __init__(self, url: str, secret: bytes) -> None:
        self._url = url
        self._secret = secret
        self._session: aiohttp.ClientSession | None = None
        # The path may be a secret itself.
        self.name = f"webhook at {urlsplit(url).hostname}"

    async def send(self, notification_id: str, document: dict[str, Any]) -> None:
        """Post a notification; see `Channel`.

        Redirects are not followed, and the body of the answer is not read.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        body = json.dumps(document).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"OCPS/{__version__}",
            **self._signed(f"msg_{notification_id}", body),
        }
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AwayError(type(error).__name__) from None
        if status >= 500 or status in PASSING:
            raise AwayError(f"HTTP {status}")
        if not 200 <= status < 300:
            raise RefusedError(f"HTTP {status}")

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        signed = b".".join([message_id.encode(), stamp.encode(), body])
        digest = base64.b64encode(hmac.digest(self._secret, signed, hashlib.sha256)).decode()
        return {"webhook-id": message_id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{digest}"}

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()


class MailChannel:
    """Sends notifications by e-mail.

    Parameters
    ----------
    config : `MailConfig`
        The mail server.
    password : `str`
        The password there; empty for none.
    recipients : `tuple` [`str`, ...]
        Addresses.
    """

    def __init__(self, config: MailConfig, password: str, recipients: tuple[str, ...]) -> None:
        self._config = config
        self._password = password
        self._recipients = recipients
        self.name = f"mail to {', '.join(recipients)}"

    async def send(self, notification_id: str, document: dict[str, Any]) -> None:
        """Send a notification; see `Channel`."""
        config = self._config
        message = mail(document, notification_id, config.sender, self._recipients)
        try:
            async with asyncio.timeout(TIMEOUT):
                await aiosmtplib.send(
                    message,
                    hostname=config.host,
                    port=config.port,
                    username=config.user or None,
                    password=self._password or None,
                    use_tls=config.tls == "tls",
                    start_tls=config.tls == "starttls",
                    timeout=TIMEOUT,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [one.code for one in error.recipients]
            raise _smtp_error(min(codes), "no recipient was accepted") from None
        except aiosmtplib.SMTPAuthenticationError as error:
            # Tried again, because somebody may correct the password meanwhile.
            raise AwayError(f"the mail server did not accept user and password ({error.code})") from None
        except aiosmtplib.SMTPResponseException as error:
            raise _smtp_error(error.code, f"the mail server answered {error.code}") from None
        except (aiosmtplib.SMTPException, TimeoutError, OSError) as error:
            raise AwayError(type(error).__name__) from None

    async def close(self) -> None:
        """Do nothing: each message has its own connection."""


def _smtp_error(code: int, words: str) -> AwayError | RefusedError:
    return RefusedError(words) if 500 <= code < 600 else AwayError(words)


def make_channels(config: NotificationsConfig) -> dict[str, Channel]:
    """Return the receivers of all rules, by key; nothing is sent or opened.

    Raises
    ------
    ConfigError
        If a rule or a secret cannot be used.
    """
    channels: dict[str, Channel] = {}
    secret = b""
    password = ""
    if any(rule.url for rule in config.rules):
        secret = _webhook_secret(config.webhook)
    if any(rule.mail for rule in config.rules):
        password = _mail_password(config.mail)
    for number, rule in enumerate(config.rules):
        if rule.url:
            _check_url(number, rule.url, config.webhook.hosts)
            channels[url_key(rule)] = WebhookChannel(rule.url, secret)
        if rule.mail:
            channels[mail_key(rule)] = MailChannel(config.mail, password, rule.mail)
    return channels


def url_key(rule: NotificationRule) -> str:
    """Return the key of the webhook of a rule."""
    return _key(f"webhook {rule.url}")


def mail_key(rule: NotificationRule) -> str:
    """Return the key of the recipients of a rule."""
    return _key(f"mail {' '.join(rule.mail)}")


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_url(number: int, url: str, hosts: tuple[str, ...]) -> None:
    place = f"notifications/rules/{number}/url"
    try:
        parts = urlsplit(url)
        host, named = parts.hostname or "", parts.username is not None
        _ = parts.port
    except ValueError:
        raise ConfigError(f"{place}: it is not a URL") from None
    if named or not host or not url.isprintable():
        raise ConfigError(
            f"{place}: expected http://host/path or https://host/path, without user and password"
        )
    if not any(fnmatch.fnmatchcase(host, glob.lower()) for glob in hosts):
        raise ConfigError(f"{place}: its host {host!r} is not among notifications/webhook/hosts")


def _webhook_secret(config: WebhookConfig) -> bytes:
    text = _read_secret("notifications/webhook/secret_file", config.secret_file)
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(SECRET_PREFIX) or len(secret) < SHORTEST_SECRET:
        raise ConfigError(
            f"notifications/webhook/secret_file: expected {SECRET_PREFIX} and base64 of at least "
            f"{SHORTEST_SECRET} random bytes"
        )
    return secret


def _mail_password(config: MailConfig) -> str:
    if not config.sender:
        raise ConfigError("notifications/mail/sender: expected the address of the sender")
    if not config.user:
        return ""
    if config.tls == "none":
        raise ConfigError("notifications/mail/tls: a password is not sent without TLS")
    return _read_secret("notifications/mail/password_file", config.password_file)


def _read_secret(place: str, path: str) -> str:
    if not path:
        raise ConfigError(f"{place}: expected a file")
    file = Path(os.path.expandvars(path)).expanduser()
    try:
        text = read_private_file(file, 4096)[0].strip()
    except UnicodeError:
        raise ConfigError(f"{place} {file}: it is not UTF-8") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise ConfigError(f"{place} {file}: {reason}") from None
    if not text:
        raise ConfigError(f"{place} {file}: it is empty")
    return text
