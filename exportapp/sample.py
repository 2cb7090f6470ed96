"""Writes the demo shop: customers, products, orders and order lines in an SQLite file or a MySQL database.

Everything follows from the seed and from fixed dates, so that two runs on two days write the same rows. Most of it
looks like real life; a few texts hold whatever breaks a careless export.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from functools import cache
from itertools import accumulate, cycle, islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

Row = tuple[Any, ...]
Progress = Callable[[str], None]

START = date(2023, 11, 1)  # the first day with orders; times are kept as seconds since its midnight in UTC
END = date(2026, 11, 1)  # the first day without; never today, for then tomorrow's shop would differ
DAY = 86_400
DAYS = (END - START).days
CUSTOMERS = 20_000
PRODUCTS = 500
BATCH = 5_000
KEPT = "the shop is there already, and is left as it is"


class SampleError(Exception):
    """The address is not one that a shop may be written to. The text says why."""


# --- tables --------------------------------------------------------------------------------------

# The row of this table is written last, so a shop without it is a half-written one; and only a database that has the
# table was made here and may be replaced.
MARKER = "sample_shop"

TABLES = {
    "customers": """(
        id {id},
        email VARCHAR(120) NOT NULL,
        full_name VARCHAR(120) NOT NULL,
        company VARCHAR(120),
        phone VARCHAR(32),
        country CHAR(2) NOT NULL,
        city VARCHAR(80) NOT NULL,
        birth_date DATE,
        newsletter BOOLEAN NOT NULL,
        credit_limit DECIMAL(10,2),
        loyalty_card VARCHAR(16),
        signed_up_at DATETIME NOT NULL,
        last_login_at DATETIME,
        notes TEXT
    ){tail}""",
    "products": """(
        id {id},
        sku VARCHAR(14) NOT NULL,
        name VARCHAR(120) NOT NULL,
        category VARCHAR(40) NOT NULL,
        price DECIMAL(10,2) NOT NULL,
        tax_rate DECIMAL(5,4) NOT NULL,
        weight_kg DOUBLE,
        in_stock INTEGER NOT NULL,
        active BOOLEAN NOT NULL,
        released_on DATE,
        attributes {json},
        description TEXT
    ){tail}""",
    "orders": """(
        id {id},
        customer_id BIGINT NOT NULL,
        email VARCHAR(120) NOT NULL,
        country CHAR(2) NOT NULL,
        status VARCHAR(16) NOT NULL,
        placed_at DATETIME NOT NULL,
        shipped_at DATETIME,
        due_on DATE,
        currency CHAR(3) NOT NULL,
        total DECIMAL(10,2) NOT NULL,
        shipping_fee DECIMAL(10,2) NOT NULL,
        tax_rate DECIMAL(5,4) NOT NULL,
        payment_method VARCHAR(16) NOT NULL,
        payment_reference BIGINT,
        tracking_id VARCHAR(14),
        is_gift BOOLEAN NOT NULL,
        comment TEXT
    ){tail}""",
    "order_lines": """(
        order_id BIGINT NOT NULL,
        line_no INTEGER NOT NULL,
        placed_at DATETIME NOT NULL,
        product_id BIGINT NOT NULL,
        quantity INTEGER NOT NULL,
        unit_price DECIMAL(10,2) NOT NULL,
        tax_rate DECIMAL(5,4) NOT NULL,
        amount DECIMAL(10,2) NOT NULL,
        note VARCHAR(200),
        PRIMARY KEY (order_id, line_no)
    ){keyed_tail}""",
}

INDEXES = (
    "CREATE UNIQUE INDEX customers_email ON customers (email)",
    "CREATE INDEX customers_signed_up_at ON customers (signed_up_at)",
    "CREATE INDEX customers_country ON customers (country)",
    "CREATE UNIQUE INDEX products_sku ON products (sku)",
    "CREATE INDEX orders_placed_at ON orders (placed_at)",
    "CREATE INDEX orders_customer_id ON orders (customer_id)",
    "CREATE INDEX orders_country ON orders (country)",
    "CREATE INDEX order_lines_placed_at ON order_lines (placed_at)",
    "CREATE INDEX order_lines_product_id ON order_lines (product_id)",
)


class Dialect(NamedTuple):
    mark: str
    analyze: str
    types: dict[str, str]


SQLITE = Dialect(
    "?",
    "ANALYZE",
    # INTEGER makes the id the row id, and WITHOUT ROWID keeps lines in key order, as InnoDB does.
    {"id": "INTEGER NOT NULL PRIMARY KEY", "json": "TEXT", "tail": "", "keyed_tail": " WITHOUT ROWID"},
)
_INNODB = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
MYSQL = Dialect(
    "%s",
    f"ANALYZE TABLE {', '.join(TABLES)}",
    {"id": "BIGINT NOT NULL PRIMARY KEY", "json": "JSON", "tail": _INNODB, "keyed_tail": _INNODB},
)


# --- what the rows are made of -------------------------------------------------------------------


class Country(NamedTuple):
    code: str
    weight: int
    currency: str
    dial: str
    tax: float
    reduced_tax: float
    first_names: list[str]
    last_names: list[str]
    cities: list[str]


def _country(code: str, weight: int, currency: str, dial: str, taxes: tuple[float, float], *names: str) -> Country:
    firsts, lasts, cities = (text.split("|") for text in names)
    return Country(code, weight, currency, dial, *taxes, firsts, lasts, cities)


COUNTRIES = [
    _country("DE", 260, "EUR", "+49", (0.19, 0.07), "Anna|Jonas|Lena|Jörg|Zoë|Hans-Peter|Mia|Emre",
             "Müller|Schmidt|Weiß|Yılmaz|von der Heide|Krüger|Meyer-Lüdenscheid",
             "Berlin|Köln|München|Halle (Saale)"),
    _country("GB", 150, "GBP", "+44", (0.20, 0.0), "Olivia|George|Amelia|Harry|Siân|Priya",
             "Smith|O'Brien|Taylor|MacDonald|Patel|Featherstonehaugh", "London|Leeds|Stoke-on-Trent|King's Lynn"),
    _country("US", 140, "USD", "+1", (0.0888, 0.0), "Emma|Liam|Ava|Noah|José|D'Andre",
             "Johnson|Williams|Garcia|O'Neill|Nguyen|Davis, Jr.", "New York, NY|Austin, TX|Coeur d'Alene, ID"),
    _country("FR", 120, "EUR", "+33", (0.20, 0.055), "Chloé|Lucas|Inès|Théo|Anaïs|Jean-Luc",
             "Martin|Lefèvre|d'Estaing|Dubois|Noël|L'Hôpital", "Paris|Lyon|Saint-Étienne|L'Haÿ-les-Roses"),
    _country("NL", 60, "EUR", "+31", (0.21, 0.09), "Daan|Sophie|Sem|Fenna", "de Vries|van 't Hof|Jansen|in 't Veld",
             "Amsterdam|'s-Hertogenbosch|Utrecht"),
    _country("CH", 45, "CHF", "+41", (0.081, 0.026), "Urs|Nadine|Reto|Chiara", "Keller|Bünzli|Rossi|Favre",
             "Zürich|Genève|Bellinzona"),
    _country("PL", 45, "PLN", "+48", (0.23, 0.08), "Zofia|Jakub|Łucja|Wojciech",
             "Nowak|Wiśniewski|Żółć|Brzęczyszczykiewicz", "Warszawa|Łódź|Gdańsk"),
    _country("IT", 45, "EUR", "+39", (0.22, 0.10), "Giulia|Leonardo|Niccolò", "Rossi|D'Angelo|Esposito",
             "Roma|Forlì|L'Aquila"),
    _country("ES", 40, "EUR", "+34", (0.21, 0.10), "Lucía|Íñigo|María José", "García Lorca|Muñoz|Ibáñez",
             "Madrid|A Coruña|Cádiz"),
    _country("SE", 25, "SEK", "+46", (0.25, 0.12), "Åsa|Björn|Linnéa", "Öberg|Lindström|Åkesson",
             "Göteborg|Malmö|Umeå"),
    _country("IE", 20, "EUR", "+353", (0.23, 0.135), "Aoife|Seán|Caoimhe", "Ó Súilleabháin|Murphy|O'Connor",
             "Dublin|Dún Laoghaire"),
    _country("JP", 30, "JPY", "+81", (0.10, 0.08), "さくら|翔太|美咲", "佐藤|鈴木|髙橋", "東京都|大阪市|札幌市"),
    _country("GR", 15, "EUR", "+30", (0.24, 0.13), "Ελένη|Γιώργος", "Παπαδόπουλος|Νικολάου", "Αθήνα|Θεσσαλονίκη"),
    _country("UA", 15, "EUR", "+380", (0.20, 0.07), "Оксана|Дмитро", "Шевченко|Коваленко", "Київ|Львів"),
    _country("IN", 25, "INR", "+91", (0.18, 0.05), "प्रिया|Arjun|Lakshmi", "शर्मा|Iyer|Reddy",
             "मुंबई|Bengaluru|Chennai"),
    _country("IL", 10, "EUR", "+972", (0.17, 0.0), "נועה|דוד", "כהן|לוי", "תל אביב|חיפה"),
    _country("EG", 10, "USD", "+20", (0.14, 0.05), "محمد|فاطمة", "عبد الله|حسن", "القاهرة|الإسكندرية"),
    _country("BR", 30, "BRL", "+55", (0.1733, 0.12), "João|Conceição|Thaís", "da Silva|Gonçalves|Araújo",
             "São Paulo|Brasília"),
]  # fmt: skip
RATES = {
    "EUR": 1.0,
    "GBP": 0.86,
    "USD": 1.09,
    "CHF": 0.95,
    "PLN": 4.3,
    "SEK": 11.4,
    "JPY": 163.0,
    "INR": 91.0,
    "BRL": 5.9,
}

STATUSES = {"delivered": 840, "shipped": 20, "paid": 10, "new": 20, "cancelled": 60, "refunded": 50}
SENT = frozenset({"delivered", "shipped", "refunded"})
PAYMENTS = {"card": 50, "wallet": 25, "invoice": 12, "bank transfer": 8, "gift card": 5}
LINES = {1: 300, 2: 300, 3: 200, 4: 100, 5: 50, 6: 30, 9: 20}  # 2.5 lines per order
QUANTITIES = (1,) * 14 + (2,) * 4 + (3, 4, 6, 12)
ID_STEPS = {1: 960, 2: 30, 5: 9, 40: 1}  # a rolled-back checkout uses up ids
HOURS = (3, 2, 1, 1, 1, 2, 4, 7, 10, 12, 13, 13, 14, 13, 13, 13, 14, 16, 19, 22, 23, 20, 13, 7)
MONTHS = (0.95, 0.9, 0.95, 1, 1, 0.95, 0.85, 0.85, 1, 1.1, 1.6, 1.8)
WEEKDAYS = (1.1, 1, 1, 1, 1, 0.85, 1.2)

NASTY = [
    'The label said "fragile", the courier didn\'t care; see photo, please 📦😡\r\n\t=SUM(A1:A9)\n-- end, 50% off\\ ',
    "Two gifts 🎁🎉, one card",
    "Family package 👨‍👩‍👧‍👦 for the 3rd floor 🇨🇭",
    "Leave with the neighbour, second floor, left",
    'Please print "Happy Birthday" on the card',
    "It's for my mother's birthday, don't ring",
    "First line\nSecond line",
    "First line\r\nSecond line\r\n\r\nFourth line",
    "Old Mac line\rnext line",
    "Colour:\tblue\tsize:\tL",
    "  please call before delivery",
    "thanks a lot  ",
    "=1+1",
    '=HYPERLINK("https://example.com/?x=1","click me")',
    "+49 30 5550123 is my new number",
    "-2 of the blue ones, please",
    "@home after 6 pm only",
    "\t=1+1",
    "00012345678905",
    "12345678901234567890",
    "1e5",
    "3/4",
    "NULL",
    "\\N",
    "C:\\temp\\new\\readme.txt; backslashes | pipes",
    "<script>alert('hello')</script> & <b>bold</b>",
    "午前中に届けてください。よろしくお願いします。",
    "الرجاء الاتصال قبل التسليم",
    "נא להשאיר ליד הדלת",
    "Будь ласка, зателефонуйте заздалегідь",
    "कृपया घंटी न बजाएँ",
    "Cafe\u0301 and Café are two spellings\u00a0of the same\u2028word",
    "\ufeffa mark that Windows leaves behind",
    '""',
    "'",
    ",",
    " ",
    "A long story. " + "And then the parcel went to the wrong street again, which nobody noticed. " * 40,
]
COMMENTS = [
    "Please ring the bell twice.", "Leave it in the garage if nobody is at home.", "Gift wrapping, please",
    "Is it possible to get an invoice without prices?", "thanks!", "Deliver after 5 pm",
    "Second attempt of my last order",
    "Bitte beim Nachbarn abgeben.", "Klingel defekt - bitte anrufen", "Lieferung an den Hintereingang", "Eilt!",
    "Merci de livrer le matin.", "Code de la porte : 4711B", "Por favor, llamar antes", "Consegnare al portiere",
    "Graag bij de buren afgeven", "Proszę o fakturę", "I ordered the wrong size last week; this one is the right one.",
    "Same as last month", "Call me when the blue one is back in stock.", "For the office, 3rd floor",
    "No plastic, please",
    "My loyalty points were not counted.", "Please combine with my other order.", "Door code 2580", "asap",
]  # fmt: skip
COMPANIES = [
    "Smith, Jones & Co.", '"Die Zwei" GmbH', "Müller & Söhne KG", "Blue Kettle Ltd", "@Work S.à r.l.", "株式会社さくら",
    "L'Atelier du Coin", "3M Tools", "Nordlicht AG", "-minus- design", "Lakeside School", "O'Hara Logistics",
]  # fmt: skip

CATEGORIES = ["Kitchen", "Office", "Garden", "Toys", "Books", "Food", "Electronics", "Sports"]
WEIGHTS = (0.5, 1, 1, 2, 3, 5, 10, 30, 1e-5)  # at most, in kg; the last one is for stickers
REDUCED = frozenset({"Books", "Food"})
ADJECTIVES = ["Blue", "Compact", "Foldable", "Café", "Oak", "Quiet", "Double", "Mini", "Solar", "Ångström", '27"', "5'"]
NOUNS = [
    "Kettle",
    "Monitor Arm",
    "Notebook, A5",
    "Lamp",
    "Puzzle",
    "Crème Brûlée Set",
    "Backpack",
    "Hammock",
    "Mug",
    "Rake",
]
COLOURS = ["red", "blue", "green", 'so-called "greige"', "黒"]


def _spread(pool: dict[Any, int]) -> dict[str, Any]:
    """Arguments of Random.choices that draw each key as often as its weight says."""
    return {"population": list(pool), "cum_weights": list(accumulate(pool.values()))}


@cache
def _day(days: int) -> str:
    return (START + timedelta(days=days)).isoformat()


def _moment(seconds: int) -> str:
    days, rest = divmod(seconds, DAY)
    return f"{_day(days)} {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


class Texts:
    """Deals out free texts: mostly none or an ordinary one, and every nasty one in turn, so that none is missed."""

    def __init__(self, rng: Random, ordinary: list[str], *, nasty: float, ordinarily: float, empty: float) -> None:
        self._random = rng.random
        self._ordinary = cycle(rng.sample(ordinary, len(ordinary)))
        self._nasty = cycle(NASTY)
        self._limits = (nasty, nasty + ordinarily, nasty + ordinarily + empty)

    def next(self, length: int = 5_000) -> str | None:
        draw = self._random()
        nasty, ordinary, empty = self._limits
        if draw < nasty:
            return next(self._nasty)[:length]
        if draw < ordinary:
            return next(self._ordinary)[:length]
        return "" if draw < empty else None


# --- customers and products ----------------------------------------------------------------------


class Buyer(NamedTuple):
    """What an order needs to know about its customer."""

    id: int
    email: str
    country: Country


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "".join(letter for letter in plain if letter.isalnum())


def _signups(rng: Random, customers: int) -> list[int]:
    """When customers signed up, in order: a quarter before the first order, so that somebody can place it."""
    early, span = customers // 4 + 1, DAYS * DAY
    before = [-1 - int(rng.random() * 3 * 365 * DAY) for _ in range(early)]
    return sorted(before + [int(rng.random() ** 0.8 * span) for _ in range(customers - early)])


def _phone(rng: Random, country: Country) -> str | None:
    draw = rng.random()
    if draw < 0.15:
        return None if draw < 0.1 else ""
    return (
        f"{country.dial} {rng.getrandbits(6) + 20} 555{rng.getrandbits(13):04}"
        if draw < 0.9
        else "0305550" + str(int(draw * 999))
    )


def _buyers(rng: Random, customers: int) -> list[Buyer]:
    countries = rng.choices(COUNTRIES, [country.weight for country in COUNTRIES], k=customers)
    return [Buyer(number, "", country) for number, country in enumerate(countries, 1)]


def _customer_rows(rng: Random, buyers: list[Buyer], signups: list[int]) -> Iterator[Row]:
    """Rows of customers; fills in the buyers' addresses on the way."""
    notes = Texts(rng, COMMENTS, nasty=0.03, ordinarily=0.12, empty=0.1)
    for index, (buyer, signed_up) in enumerate(zip(buyers, signups, strict=True)):
        first, last = rng.choice(buyer.country.first_names), rng.choice(buyer.country.last_names)
        name = ".".join(filter(None, (_ascii(first), _ascii(last)))) or "shopper"
        email = f"{name}{'+shop' if rng.random() < 0.02 else '.'}{buyer.id}@example.{rng.choice(('com', 'org', 'net'))}"
        buyers[index] = buyer._replace(email=email)
        login = signed_up + int(rng.random() * (DAYS * DAY - signed_up))
        yield (
            buyer.id,
            email,
            f"  {first} {last} " if rng.random() < 0.02 else f"{first} {last}",
            rng.choice(COMPANIES) if rng.random() < 0.12 else rng.choice((None, None, "")),
            _phone(rng, buyer.country),
            buyer.country.code,
            rng.choice(buyer.country.cities),
            date.fromordinal(date(1940, 1, 1).toordinal() + int(rng.random() * 24_000)).isoformat()
            if rng.random() < 0.6
            else None,
            int(rng.random() < 0.35),
            int(rng.random() * 200) * 50 + rng.choice((0, 0.5, 0.99)) if rng.random() < 0.3 else None,
            f"{rng.getrandbits(50):016}" if rng.random() < 0.5 else None,
            _moment(signed_up),
            _moment(login) if rng.random() < 0.9 else None,
            notes.next(),
        )


class Product(NamedTuple):
    id: int
    category: str
    cents: int


def _products(rng: Random) -> list[Product]:
    def cents() -> int:
        whole = min(1999, max(1, int(rng.lognormvariate(3.2, 1.0))))
        return whole * 100 + rng.choice((99, 99, 99, 50, 0, 95, int(rng.random() * 100)))

    return [Product(number, rng.choice(CATEGORIES), cents()) for number in range(1, PRODUCTS + 1)]


def _attributes(rng: Random) -> str | None:
    """A JSON object; some have nested values, line breaks in a string, or nothing."""
    if (draw := rng.random()) < 0.1:
        return None if draw < 0.05 else "{}"
    value: dict[str, Any] = {
        "colour": rng.choice(COLOURS),
        "sizes": rng.sample(["S", "M", "L", "XL"], 2),
        "eco": draw < 0.4,
    }
    if draw > 0.7:
        value["battery"] = {"volts": 3.7, "included": draw > 0.85, "label": "🔋 Li-Ion"}
    if draw > 0.9:
        value["hint"] = 'keep "dry",\nkeep cool'
        value["discontinued"] = None
    return json.dumps(value, ensure_ascii=False)


def _product_rows(rng: Random, products: list[Product]) -> Iterator[Row]:
    descriptions = Texts(rng, COMMENTS, nasty=0.1, ordinarily=0.6, empty=0.1)
    for product in products:
        yield (
            product.id,
            f"{product.id * 37:08}{rng.getrandbits(13):04}",
            f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {product.id}",
            product.category,
            product.cents / 100,
            COUNTRIES[0].reduced_tax if product.category in REDUCED else COUNTRIES[0].tax,
            # Unrounded on purpose, some in scientific notation: floats have to come out with all their digits.
            rng.choice(WEIGHTS) * rng.random() if rng.random() < 0.9 else None,
            int(rng.random() * 400),
            int(rng.random() < 0.9),
            _day(int(rng.random() * DAYS) - 700) if rng.random() < 0.8 else None,
            _attributes(rng),
            descriptions.next(),
        )


# --- orders --------------------------------------------------------------------------------------


def _busy(day: date) -> float:
    """How many orders a day sees compared with others: more each year, before Christmas and on Sundays."""
    growth = 1 + 1.2 * (day - START).days / DAYS
    black_friday = 2.0 if day.month == 11 and day.weekday() == 4 and 23 <= day.day <= 29 else 1.0
    return growth * MONTHS[day.month - 1] * WEEKDAYS[day.weekday()] * black_friday


def _moments(rng: Random, orders: int) -> Iterator[int]:
    """When orders were placed, from the first to the last."""
    sums = list(accumulate(_busy(START + timedelta(days=number)) for number in range(DAYS)))
    hours, done = list(accumulate(HOURS)), 0
    for number, upto in enumerate(round(orders * reached / sums[-1]) for reached in sums):
        drawn = rng.choices(range(24), cum_weights=hours, k=upto - done)
        yield from sorted(number * DAY + hour * 3600 + int(rng.random() * 3600) for hour in drawn)
        done = upto


def _local(cents: int, country: Country) -> int:
    """Cents of a euro in the country's money. The yen has none, so its amounts are whole hundreds."""
    step = 100 if country.currency == "JPY" else 1
    return round(cents * RATES[country.currency] / step) * step


class Orders:
    """Makes orders with their lines, batch by batch, in the order of their ids."""

    def __init__(
        self, rng: Random, orders: int, buyers: list[Buyer], signups: list[int], products: list[Product]
    ) -> None:
        self._rng, self._orders, self._buyers, self._signups = rng, orders, buyers, signups
        popularity = [int(PRODUCTS * rng.random() ** 2) for _ in range(8 * PRODUCTS)]
        self._baskets = {country.code: self._offers(country, products, popularity) for country in COUNTRIES}
        self._comments = Texts(rng, COMMENTS, nasty=0.04, ordinarily=0.3, empty=0.08)
        self._notes = Texts(
            rng, ["gift wrap", "engraving: L & M", "replacement", "size M"], nasty=0.004, ordinarily=0.05, empty=0.03
        )

    @staticmethod
    def _offers(country: Country, products: list[Product], popularity: list[int]) -> list[tuple[int, int, float]]:
        """Id, price in cents and tax rate of products in this country; those that sell well come up more often."""
        taxes = (country.tax, country.reduced_tax)
        offers = [
            (product.id, _local(product.cents, country), taxes[product.category in REDUCED]) for product in products
        ]
        return [offers[index] for index in popularity]

    def batches(self) -> Iterator[tuple[list[Row], list[Row]]]:
        """Rows of orders and of their lines."""
        moments, next_id, made = _moments(self._rng, self._orders), 100_000, 0
        gap_at = self._orders * 2 // 5  # where the shop changed its software, and the new one its numbers
        while batch := list(islice(moments, BATCH)):
            ids = list(accumulate(self._rng.choices(**_spread(ID_STEPS), k=len(batch)), initial=next_id))[1:]
            if made <= gap_at < made + len(batch):
                ids[gap_at - made :] = [number + self._orders // 2 for number in ids[gap_at - made :]]
            yield self._batch(ids, batch)
            next_id, made = ids[-1], made + len(batch)

    def _batch(self, ids: list[int], moments: list[int]) -> tuple[list[Row], list[Row]]:
        choices, count = self._rng.choices, len(ids)
        drawn = (choices(**_spread(pool), k=count) for pool in (STATUSES, PAYMENTS, LINES))
        lines: list[Row] = []
        orders = [self._order(lines, *values) for values in zip(ids, moments, *drawn, strict=True)]
        return orders, lines

    def _order(self, lines: list[Row], number: int, placed: int, status: str, payment: str, count: int) -> Row:
        rng, random = self._rng, self._rng.random
        if random() < 0.004:  # a late import, of a market place's orders say: a new id with an old time
            placed -= int(random() * min(placed, 45 * DAY))
        # The exponent makes older customers order more often. Nobody orders before signing up.
        buyer = self._buyers[int(bisect_right(self._signups, placed) * random() ** 1.3)]
        status, shipped = self._shipping(status, placed)
        when = _moment(placed)
        sum_of_lines = self._lines(lines, number, when, buyer.country, -1 if status == "refunded" else 1, count)
        fee = _local(490, buyer.country) if 0 <= sum_of_lines < _local(5_000, buyer.country) else 0
        return (
            number,
            buyer.id,
            buyer.email,
            buyer.country.code,
            status,
            when,
            None if shipped is None else _moment(shipped),
            None if status == "cancelled" else _day(placed // DAY + 3 + int(random() * 6)),
            buyer.country.currency,
            (sum_of_lines + fee) / 100,
            fee / 100,
            buyer.country.tax,
            payment,
            None if status == "new" else 10**17 + rng.getrandbits(56),  # 18 digits: more than a spreadsheet keeps
            None if shipped is None else "" if random() < 0.03 else f"{rng.getrandbits(40):014}",
            int(random() < 0.07),
            self._comments.next(),
        )

    def _shipping(self, status: str, placed: int) -> tuple[str, int | None]:
        """The status as far as the last day allows it, and when the parcel left."""
        if status not in SENT:
            return status, None
        shipped = placed + 4 * 3600 + int(self._rng.random() ** 2 * 5 * DAY)
        if shipped >= DAYS * DAY:
            return "paid", None
        return ("shipped" if status == "delivered" and shipped > (DAYS - 2) * DAY else status), shipped

    def _lines(self, lines: list[Row], order: int, placed: str, country: Country, sign: int, count: int) -> int:
        """Adds an order's lines; returns their sum in cents."""
        offers, random, total = self._baskets[country.code], self._rng.random, 0
        for line in range(1, count + 1):
            product, cents, tax = offers[int(random() * len(offers))]
            quantity = sign * QUANTITIES[int(random() * len(QUANTITIES))]
            amount = quantity * cents
            total += amount
            lines.append(
                (order, line, placed, product, quantity, cents / 100, tax, amount / 100, self._notes.next(200))
            )
        return total


# --- writing -------------------------------------------------------------------------------------


class Cursor(Protocol):
    """What the cursors of sqlite3 and MySQLdb have in common."""

    def execute(self, statement: str, /) -> object: ...
    def executemany(self, statement: str, rows: Any, /) -> object: ...
    def fetchall(self) -> Any: ...


class Writer:
    """Fills a database with the shop through a cursor of either dialect."""

    def __init__(self, cursor: Cursor, dialect: Dialect, progress: Progress) -> None:
        self._cursor, self._dialect, self._progress = cursor, dialect, progress
        self._counts = dict.fromkeys(TABLES, 0)

    def create(self) -> None:
        """Empty tables. The marker's row goes first, so that nobody takes the rest for a whole shop."""
        self._cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {MARKER} (name VARCHAR(40) NOT NULL PRIMARY KEY, row_count BIGINT NOT NULL)"
        )
        self._cursor.execute(f"DELETE FROM {MARKER}")
        for table, columns in TABLES.items():
            self._cursor.execute(f"DROP TABLE IF EXISTS {table}")
            self._cursor.execute(f"CREATE TABLE {table} {columns.format(**self._dialect.types)}")

    def fill(self, orders: int, seed: int) -> None:
        # Each part draws from a generator of its own, so that a change of one leaves the others as they are.
        people, goods, sales = (Random(f"{seed} {part}") for part in ("customers", "products", "orders"))
        customers = min(CUSTOMERS, max(50, orders // 10))
        buyers, signups, products = _buyers(people, customers), _signups(people, customers), _products(goods)
        self._insert("customers", _customer_rows(people, buyers, signups))
        self._insert("products", _product_rows(goods, products))
        self._progress(f"{customers:,} customers, {PRODUCTS:,} products")
        step = max(orders // 4, BATCH)
        for rows, lines in Orders(sales, orders, buyers, signups, products).batches():
            self._insert("orders", rows)
            self._insert("order_lines", lines)
            done = self._counts["orders"]
            if done % step < len(rows) or done == orders:
                self._progress(f"{done:,} of {orders:,} orders, {self._counts['order_lines']:,} lines")

    def _insert(self, table: str, rows: Iterable[Row]) -> None:
        remaining = iter(rows)
        while batch := list(islice(remaining, 4 * BATCH)):
            marks = ", ".join([self._dialect.mark] * len(batch[0]))
            self._cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", batch)
            self._counts[table] += len(batch)

    def index(self) -> None:
        self._progress("indexes and statistics")
        for statement in INDEXES:
            self._cursor.execute(statement)
        self._cursor.execute(self._dialect.analyze)
        self._cursor.fetchall()

    def mark(self) -> dict[str, int]:
        """Writes the marker's rows: from now on the shop is whole."""
        mark = self._dialect.mark
        self._cursor.executemany(f"INSERT INTO {MARKER} VALUES ({mark}, {mark})", list(self._counts.items()))
        return self._counts


def write_shop(
    url: str, orders: int = 200_000, seed: int = 20261101, progress: Progress = print, *, replace: bool = False
) -> dict[str, int]:
    """Writes the shop to `sqlite:////path/file` or `mysql://user:password@host:port/database`; returns row counts.

    A whole shop that stands there already is left alone, whatever its size, unless `replace` is true. A half-written
    one is always written anew. Tables of the same names that were not made here are never touched.
    """
    parts = urlsplit(url)
    if orders < 1:
        raise SampleError("A shop has at least one order.")
    if parts.scheme == "sqlite" and len(parts.path) > 1:
        return _write_sqlite(Path(unquote(parts.path)[1:]).absolute(), orders, seed, progress, replace)
    if parts.scheme == "mysql" and len(parts.path) > 1:
        return _write_mysql(parts, orders, seed, progress, replace)
    raise SampleError("The address is neither sqlite:////path/file nor mysql://user:password@host:port/database.")


def _standing(cursor: Cursor, present: set[str]) -> dict[str, int] | None:
    """The counts of a whole shop among the tables `present`, or None if one may be written."""
    if MARKER in present:
        cursor.execute(f"SELECT name, row_count FROM {MARKER}")
        counts = {str(name): int(count) for name, count in cursor.fetchall()}
        return {table: counts[table] for table in TABLES} if counts.keys() >= TABLES.keys() else None
    if strange := sorted(present & TABLES.keys()):
        raise SampleError(f"The database has tables that are not the demo's ({', '.join(strange)}); it is left alone.")
    return None


def _write_sqlite(path: Path, orders: int, seed: int, progress: Progress, replace: bool) -> dict[str, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _alone_in(path.parent):
        standing = _sqlite_shop(path)
        if standing and not replace:
            progress(KEPT)
            return standing
        part.unlink(missing_ok=True)  # of a run that was interrupted
        try:
            counts = _fill_sqlite(part, orders, seed, progress)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return counts


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two runs at once would write the same part file: the second one waits, then finds the shop whole."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sqlite_shop(path: Path) -> dict[str, int] | None:
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        cursor = connection.cursor()
        names = cursor.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite%'"
        )
        present = {str(name) for (name,) in names.fetchall()}
        if strange := sorted(
            present - TABLES.keys() - {MARKER}
        ):  # the whole file is replaced, so nothing else may be in it
            raise SampleError(
                f"The file {path} has other tables than the demo's ({', '.join(strange)}); it is left alone."
            )
        return _standing(cursor, present)


def _fill_sqlite(path: Path, orders: int, seed: int, progress: Progress) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        cursor = connection.cursor()
        # Nothing needs to survive a crash: the file gets its name only when it is whole.
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA cache_size=-65536", "BEGIN"):
            cursor.execute(statement).fetchall()
        writer = Writer(cursor, SQLITE, progress)
        writer.create()
        writer.fill(orders, seed)
        writer.index()
        counts = writer.mark()
        cursor.execute("COMMIT")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return counts


def _write_mysql(parts: SplitResult, orders: int, seed: int, progress: Progress, replace: bool) -> dict[str, int]:
    with contextlib.closing(_connect_mysql(parts)) as connection:
        cursor = connection.cursor()
        cursor.max_stmt_length = 1 << 20  # rows are sent in statements of about this size
        # As above: the second of two runs waits. The lock goes with the connection.
        cursor.execute("SELECT GET_LOCK(LEFT(CONCAT(DATABASE(), ' sample shop'), 64), 3600)")
        cursor.execute("SHOW TABLES")
        standing = _standing(cursor, {str(name) for (name,) in cursor.fetchall()})
        if standing and not replace:
            progress(KEPT)
            return standing
        writer = Writer(cursor, MYSQL, progress)
        writer.create()
        writer.fill(orders, seed)
        connection.commit()
        writer.index()
        counts = writer.mark()
        connection.commit()
    return counts


def _connect_mysql(parts: SplitResult) -> Any:
    import MySQLdb  # only here: SQLite has to do without the driver

    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    extra: dict[str, Any] = {"unix_socket": options["unix_socket"]} if "unix_socket" in options else {}
    if "ssl_ca" in options:
        extra["ssl"] = {"ca": options["ssl_ca"]}
    return MySQLdb.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.lstrip("/")),
        charset="utf8mb4",
        connect_timeout=5,
        init_command="SET sql_mode='TRADITIONAL,NO_ENGINE_SUBSTITUTION'",
        **extra,
    )
