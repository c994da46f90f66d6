"""Questions of a new user are answered within three clicks: by the links of the pages, and in a browser."""

import importlib.util
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

_SPEC = importlib.util.spec_from_file_location("questions", Path(__file__).with_name("questions.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
QUESTIONS, MOST_CLICKS = _MODULE.QUESTIONS, _MODULE.MOST_CLICKS


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_is_answered_within_three_clicks(get: Callable[[str], SimpleNamespace], question: str) -> None:
    clicks, answers = QUESTIONS[question]
    assert len(clicks) <= MOST_CLICKS
    text = get("/").text
    for click in clicks:
        if isinstance(click, tuple):
            action, fields = click
            assert re.search(rf'<form[^>]*action="{action}"', text)
            assert all(f'name="{name}"' in text for name in fields)
            target = f"{action}?{urlencode(fields)}"
        else:
            links = [unescape(link) for link in re.findall(r'href="([^"]*)"', text)]
            found = [link for link in links if re.fullmatch(click, link)]
            assert found, f"no link {click} among {links}"
            target = found[0]
        page = get(target)
        assert page.status == 200
        text = page.text
    for answer in answers:
        assert answer in unescape(re.sub(r"<(?!img)[^>]+>", "", text)), answer


@pytest.mark.soak
def test_they_are_answered_in_a_browser(address: str, browser: Any) -> None:
    """By clicks in Chromium, without JavaScript, on a phone's width; nothing is asked of another host."""
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740})
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    for question, (clicks, answers) in QUESTIONS.items():
        page = context.new_page()
        page.goto(address)
        for click in clicks:
            _click(page, click)
        text = page.content()
        for answer in answers:
            assert answer in unescape(re.sub(r"<(?!img)[^>]+>", "", text)), (question, answer)
        page.close()
    context.close()
    assert {url.partition("://")[2].partition("/")[0] for url in asked if not url.startswith("data:")} == {
        address.partition("://")[2]
    }


def _click(page: Any, click: object) -> None:
    if isinstance(click, tuple):
        action, fields = click
        form = page.locator(f'form[action="{action}"]').first
        for name, value in fields.items():
            control = form.locator(f'[name="{name}"]')
            if control.evaluate("each => each.tagName") == "SELECT":
                control.select_option(value)
            else:
                control.fill(value)
        form.locator("button").first.click()
    else:
        links = page.locator("a[href]")
        for number in range(links.count()):
            href = links.nth(number).get_attribute("href")
            if re.fullmatch(str(click), href):
                links.nth(number).click()
                break
        else:
            raise AssertionError(f"no link {click}")
    page.wait_for_load_state()
