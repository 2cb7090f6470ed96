"""Whether bytes are JSON (RFC 8259), found out without building its values: those take thirty times the room of their text."""

from __future__ import annotations

import re

LEVELS = 3  # of nesting that one regular expression sees through: each more makes it twice as long
MOST_DEEP = 500  # levels in all; many programs that read JSON give up at 1000, and some before


def _many(pattern: bytes) -> bytes:
    """Repeated without a way back, so that no memory grows with the text.

    Python before 3.11.5 goes on where the try that failed had stopped (gh-106052): the second branch leads back from there.
    """
    return b"(?:%b|(?!))*+" % pattern


def _maybe(pattern: bytes) -> bytes:
    return b"(?>%b|)" % pattern


_SPACE = rb"[ \t\r\n]*+"
_PLAIN = rb'[^"\\\x00-\x1f]*+'
_STRING = b'"' + _PLAIN + _many(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN) + b'"'
_NUMBER = b"-?(?:0|[1-9][0-9]*+)" + _maybe(rb"\.[0-9]++") + _maybe(rb"[eE][+-]?[0-9]++")
_SCALAR = b"%b|%b|true|false|null" % (_STRING, _NUMBER)
_KEY = _STRING + _SPACE + b":" + _SPACE


def _value(levels: int) -> bytes:
    """A value that has no more than so many levels of arrays and objects."""
    if not levels:
        return b"(?:%b)" % _SCALAR
    value = _value(levels - 1) + _SPACE
    array = _many(value + rb"(?:,%b(?!\])|(?=\]))" % _SPACE)
    members = _many(_KEY + value + rb"(?:,%b(?!\})|(?=\}))" % _SPACE)
    return rb"(?:%b|\[%b%b\]|\{%b%b\})" % (_SCALAR, _SPACE, array, _SPACE, members)


_FLAT = _value(LEVELS)
_WHOLE = re.compile(_SPACE + _FLAT + _SPACE)
_OPENED = re.compile(_SPACE + rb"([\[{])")
_END = re.compile(_SPACE)
# What may follow in an array and in an object: values, and then its end (group 1) or one that goes deeper (group 2).
_NEXT = {
    opener: re.compile(
        _SPACE
        + _many(key + _FLAT + _SPACE + b"," + _SPACE)
        + rb"(?:%b%b%b(\%b)|%b([\[{]))" % (key, _FLAT, _SPACE, end, key)
    )
    for opener, key, end in ((b"[", b"", b"]"), (b"{", _KEY, b"}"))
}
_BEHIND = {b"[": re.compile(_SPACE + rb"(?:,|(\]))"), b"{": re.compile(_SPACE + rb"(?:,|(\}))")}


def is_json(text: bytes) -> bool:
    """Whether a text in UTF-8 is one JSON value, nested no deeper than MOST_DEEP."""
    return _WHOLE.fullmatch(text) is not None or _is_deep_json(text)


def _is_deep_json(text: bytes) -> bool:
    found = _OPENED.match(text)
    if found is None:
        return False
    opened = [found[1]]
    while opened:
        found = _NEXT[opened[-1]].match(text, found.end())
        if found is None:
            return False
        if found[2]:
            opened.append(found[2])
            if len(opened) > MOST_DEEP - LEVELS:
                return False
            continue
        opened.pop()
        while opened and (found := _BEHIND[opened[-1]].match(text, found.end())) and found[1]:
            opened.pop()
        if found is None:
            return False
    return _END.fullmatch(text, found.end()) is not None
