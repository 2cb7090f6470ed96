"""A person with a browser without JavaScript: keeps cookies, fills the forms that a page has, follows its links."""

from __future__ import annotations

import http.cookiejar
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin

from tests.pages import Element, Pairs, changed, read


@dataclass(frozen=True)
class Answer:
    """What a server answered, after redirects."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def page(self) -> Element:
        return read(self.body)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Visitor:
    """One browser, at the address of one desk."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._following = urllib.request.build_opener(self._cookies)
        self._staying = urllib.request.build_opener(self._cookies, _Stay())

    def get(self, path: str, *, follow: bool = True, **headers: str) -> Answer:
        return self._send(urllib.request.Request(urljoin(self.address, path), headers=headers), follow)

    def post(self, path: str, pairs: Pairs, *, follow: bool = True) -> Answer:
        return self._send(urllib.request.Request(urljoin(self.address, path), urlencode(pairs).encode()), follow)

    def _send(self, request: urllib.request.Request, follow: bool) -> Answer:
        opener = self._following if follow else self._staying
        try:
            with opener.open(request, timeout=30) as response:
                return Answer(response.status, response.url, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.url or "", error.headers, error.read())

    def sign_in(self, name: str, password: str) -> Answer:
        """Through the form that asks for it, wherever it comes up."""
        form = self.get("/login/").page.one("main").one("form")
        answer = self.post("/login/", changed(form.sends(), username=name, password=password))
        assert answer.status == 200
        assert "/login/" not in answer.url, answer.page.one("main").text
        return answer

    def ask(self, dataset: str, **typed: str | list[str] | None) -> str:
        """Fills the form of a dataset and starts the export; the path of its page."""
        path = f"/exports/new/{dataset}/"
        form = self.get(path).page.one("main").one("form")
        answer = self.post(path, changed(form.sends(), **typed))
        assert answer.status == 200, answer.page.one("main").text
        return answer.page.one("main").all("a", cls="name")[0].attributes["href"]

    def state(self, path: str) -> str:
        """The state that the page of an export shows."""
        return self.get(path).page.one("main").all("span", cls="state")[0].text

    def download(self, path: str, **headers: str) -> Answer:
        """Clicks on the link of an export's page."""
        [link] = [one for one in self.get(path).page.one("main").all("a", cls="btn") if "Download" in one.text]
        return self.get(link.attributes["href"], **headers)
