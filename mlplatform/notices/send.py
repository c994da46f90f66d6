"""Sends a notice in every way that a root's settings name. What cannot be sent is reported, and no more."""

import json
import logging
import os
import smtplib
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from urllib.parse import quote

from mlplatform.home import Home
from mlplatform.notices.settings import Mail, NoticeSettings, Occasion, read_settings
from mlplatform.redirects import NoRedirect

log = logging.getLogger(__name__)

_REASON_CHARACTERS = 2000


@dataclass(frozen=True)
class Notice:
    """Something that people should know.

    Attributes:
        occasion: What happened.
        subject: What it happened to: a pipeline, or a version of a model.
        reason: Why, in a few lines.
        run: The run's id; empty where there is none.
        link: Where more is to be seen; empty for nowhere.
    """

    occasion: Occasion
    subject: str
    reason: str = ""
    run: str = ""
    link: str = ""

    @property
    def title(self) -> str:
        """The notice in one line."""
        words = {
            "failed": "failed",
            "refused": "was refused by a gate",
            "recovered": "works again",
            "rolled_back": "was rolled back",
            "approval_wanted": "waits for an approval",
        }
        return " ".join(f"{self.subject} {words[self.occasion]}".split())

    @property
    def text(self) -> str:
        """The notice in a few lines."""
        run = f"run {self.run}" if self.run else ""
        return "\n".join(part for part in (self.title, self.reason, run, self.link) if part)


def send(home: Home, notice: Notice) -> dict[str, str]:
    """Send a notice in every way that the root's settings name; never raises for what cannot be sent.

    Returns:
        By the way (`webhook`, `mail`, `command`, or `settings` where these cannot be used), what went wrong;
        empty text where nothing did. Nothing where nobody is to be notified of this.
    """
    try:
        settings = read_settings(home)
    except Exception as error:  # noqa: BLE001 - what was done stays done, whatever the settings are
        return _report({"settings": str(error)})
    if settings is None or notice.occasion not in settings.notify:
        return {}
    if settings.dashboard and notice.run:
        link = f"{settings.dashboard.rstrip('/')}/runs/{quote(notice.run, safe='')}"
        notice = Notice(notice.occasion, notice.subject, notice.reason[:_REASON_CHARACTERS], notice.run, link)
    ways: dict[str, Callable[[], object]] = {}
    if settings.webhook:
        ways["webhook"] = lambda: _post(settings, notice)
    if (mail := settings.mail) is not None:
        ways["mail"] = lambda: _mail(mail, notice, settings.timeout_s)
    if settings.command:
        ways["command"] = lambda: _run(settings, notice)
    return _report({name: _tried(way) for name, way in ways.items()})


def _tried(way: Callable[[], object]) -> str:
    try:
        way()
    except Exception as error:  # noqa: BLE001 - servers and programs fail in any way
        return f"{type(error).__name__}: {error}"
    return ""


def _report(outcome: dict[str, str]) -> dict[str, str]:
    for way, problem in outcome.items():
        if problem:
            log.warning("a notice could not be sent (%s): %s", way, problem)
    return outcome


def _post(settings: NoticeSettings, notice: Notice) -> None:
    body = json.dumps({"text": notice.text, **asdict(notice)}).encode()
    request = urllib.request.Request(
        settings.webhook, body, {"Content-Type": "application/json"}, method="POST"
    )
    opener = urllib.request.build_opener(NoRedirect)
    with opener.open(request, timeout=settings.timeout_s) as answer:
        answer.read(1)


def _mail(mail: Mail, notice: Notice, timeout_s: float) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = notice.title, mail.sender, ", ".join(mail.to)
    message.set_content(notice.text)
    context = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(mail.server, mail.port, timeout=timeout_s, context=context)
        if mail.tls == "implicit"
        else smtplib.SMTP(mail.server, mail.port, timeout=timeout_s)
    ) as server:
        if mail.tls == "starttls":
            server.starttls(context=context)
        if mail.user:
            server.login(mail.user, os.environ[mail.password_variable])
        server.send_message(message)


def _run(settings: NoticeSettings, notice: Notice) -> None:
    document = json.dumps({"title": notice.title, "text": notice.text, **asdict(notice)})
    subprocess.run(
        settings.command,
        input=document.encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=settings.timeout_s,
        check=True,
    )
