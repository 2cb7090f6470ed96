"""Reads a page as a browser without JavaScript does: its elements, its forms and what a form sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}

Pairs = list[tuple[str, str]]


@dataclass
class Element:
    """One element of a page; a text inside it is a plain string among its children."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, with single spaces."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """The elements inside with this tag and these attributes; `cls` means one of the classes."""
        return [element for element in self.walk() if element.fits(tag, attributes)]

    def one(self, tag: str = "", **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} times {tag} {attributes} in: {self.text[:2000]}"
        return found[0]

    def walk(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.walk()

    def fits(self, tag: str, attributes: dict[str, str]) -> bool:
        own = self.attributes
        return (not tag or self.tag == tag) and all(
            value in own.get("class", "").split() if name == "cls" else own.get(name) == value
            for name, value in attributes.items()
        )

    def sends(self, pressed: str = "", value: str = "") -> Pairs:
        """What this form sends when it is submitted, by the button named `pressed` if one is named."""
        pairs: Pairs = []
        for control in self.walk():
            pairs += [(control.attributes["name"], sent) for sent in _values(control) if "name" in control.attributes]
        if pressed:
            self.one("button", name=pressed, value=value)
            pairs.append((pressed, value))
        return pairs


def _values(control: Element) -> list[str]:
    own = control.attributes
    if "disabled" in own:
        return []
    if control.tag == "input":
        if own.get("type") in ("checkbox", "radio"):
            return [own.get("value", "on")] if "checked" in own else []
        return [own.get("value", "")]
    if control.tag == "select":
        options = control.all("option")
        chosen = [option for option in options if "selected" in option.attributes] or options[:1]
        return [option.attributes.get("value", option.text) for option in chosen]
    return []


class Page(HTMLParser):
    """`Page(html).root` is the document; complains about elements that are closed in the wrong order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(html)
        self.close()
        assert len(self._open) == 1, f"never closed: {[element.tag for element in self._open[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def read(html: str | bytes) -> Element:
    """The document of a page."""
    return Page(html.decode() if isinstance(html, bytes) else html).root


def changed(pairs: Pairs, **values: str | list[str] | None) -> Pairs:
    """The pairs of a form with other values: None leaves a field out, and `filter_low` stands for `filter-low`."""
    named = {name.replace("filter_", "filter-"): value for name, value in values.items()}
    kept = [(name, value) for name, value in pairs if name not in named]
    for name, value in named.items():
        kept += [(name, one) for one in ([value] if isinstance(value, str) else value or [])]
    return kept


def beside(page: Element, control: Element) -> str:
    """The sentences that belong to a form's control, as a screen reader finds them."""
    ids = control.attributes.get("aria-describedby", "").split()
    return " ".join(page.one(id=one).text for one in ids)
