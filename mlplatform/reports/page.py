"""Renders the HTML pages: one look for all of them, everything inside one file."""

import base64
import errno
import os
import re
import uuid
from pathlib import Path
from typing import Any

import jinja2

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Render a template of this folder to `path`, in one step: a reader sees the old page or the new one.

    Args:
        path: The HTML file; its folder is made.
        template: File name of a template that extends `base.html`.
        context: What the template shows; a name that it uses and is not given is an error.

    Raises:
        OSError: The page cannot be written: `path` is a folder, the disk is full, ...; it names `path`.
    """
    return write_html(path, render(template, **context))


def write_html(path: Path, text: str) -> Path:
    """Write a page to `path`, in one step, as `write_page` does.

    Raises:
        OSError: It cannot be written; the error names `path`.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(template: str, **context: Any) -> str:
    """Return a template of this folder as HTML; a name that it uses and is not given is an error."""
    return visible(_TEMPLATES.get_template(template).render(**context))


def visible(text: str) -> str:
    """Return a text in which what turns its direction around, or hides in it, can be seen.

    Names and logs come from anywhere, and would read as something else. It is UTF-8 afterwards.
    """
    return _UNSEEN.sub("\ufffd", text)


def picture(encoded: bytes, kind: str = "jpeg") -> str:
    """Return an encoded image as a data URI, for the `src` of an `img`.

    Args:
        encoded: The image file's bytes.
        kind: `jpeg`, `png` or `webp`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
