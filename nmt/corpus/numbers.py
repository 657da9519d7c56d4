"""The corpus we own: parallel expressions and short sentences about numbers, dates, times and prices, all in words.

Every pair is one value spelled twice, so a source has exactly one correct target and exact match can be measured.
A *slot* (`cardinal`, `price`, ...) is drawn once, by `_Draw`, and spelled by the method of that name of both languages;
a *template* is a text with slots. English, German, French and Spanish have grammar and sentences written here. Every
other language of num2words has the bare expressions, without the kinds that num2words lacks or spells ambiguously.
"""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from typing import Any

from nmt.errors import ConfigError
from nmt.text.normalize import normalize

_CACHE = 1 << 16  # spelled values kept a language and kind: bounds the memory, whatever the number of pairs
_CURRENCIES = ("EUR", "USD", "GBP")
_YEARS = range(1750, 2050)
_SAME_LANGUAGE = {"kk": "kz", "nb": "no", "nn": "no"}  # code: the code of num2words
_LOCALES = {"kz": "kk", "sr": "sr_Latn"}  # num2words: CLDR, where the names or the scripts differ
_PLAIN_YEARS = {"ja", "ko"}  # num2words gives era names, or the word for year that CLDR's date has already
_UNSPELLED = {"cs", "hu", "kn", "ko", "ro", "te"}  # English plurals, a wrong gender, or "zero cents" at the end
_WRONG_MONEY = (_UNSPELLED, _UNSPELLED, _UNSPELLED | {"fr_BE", "fr_CH", "lv", "pt"})  # in the order of _CURRENCIES

# Regular expressions: what num2words gets wrong, a cardinal before a noun (`f`: feminine), an object.
_CORRECTIONS = {
    "de": {"einstausend": "eintausend"},
    "fr": {"vingtsième": "vingtième"},
    "es": {"veintiuno mil": "veintiún mil", "uno mil": "un mil", "décimoprimero": "undécimo",
           "décimosegundo": "duodécimo", "^décimo octavo": "decimoctavo", r"^décimo (?=\w)": "decimo"},
}  # fmt: skip
_BEFORE_NOUN = {
    "de": {"eins$": "ein"},
    "fr f": {"un$": "une"},
    "es": {"veintiuno$": "veintiún", "uno$": "un"},
    "es f": {"uno$": "una", "ientos": "ientas"},
}
_OBJECT = {"de": {"^der ": "den ", r"\bein (?=Euro|Dollar|Cent|Penny)": "einen "}}

# Rows of one text a language, in this order. `%` is a number before a noun, `%f` before a feminine one.
_OWNED = ("en", "de", "fr", "es")
_TABLES = {
    "thing": "the book / das Buch / le livre / el libro; the table / der Tisch / la table / la mesa; "
    "the lamp / die Lampe / la lampe / la lámpara; the coat / der Mantel / le manteau / el abrigo; "
    "the bicycle / das Fahrrad / le vélo / la bicicleta; the ticket / die Karte / le billet / el billete",
    "vehicle": "the train / der Zug / le train / el tren; the bus / der Bus / le bus / el autobús; "
    "the ship / das Schiff / le bateau / el barco",
    "event": "the film / der Film / le film / la película; the concert / das Konzert / le concert / el concierto; "
    "the meeting / die Sitzung / la réunion / la reunión; the course / der Kurs / le cours / el curso",
    "place": "the museum / das Museum / le musée / el museo; the shop / der Laden / le magasin / la tienda; "
    "the library / die Bibliothek / la bibliothèque / la biblioteca",
    "born": "Anna was / Anna wurde / Anna est née / Anna nació; Paul was / Paul wurde / Paul est né / Paul nació; "
    "Laura was / Laura wurde / Laura est née / Laura nació; David was / David wurde / David est né / David nació",
    "name": "Anna / Anna / Anna / Anna; Paul / Paul / Paul / Paul; Laura / Laura / Laura / Laura",
    "counted": "% books / % Bücher / % livres / % libros; % chairs / % Stühle / %f chaises / %f sillas; "
    "% cups / % Tassen / %f tasses / %f tazas; % apples / % Äpfel / %f pommes / %f manzanas",
    "numbered": "the % day / der % Tag / le % jour / el % día; the % train / der % Zug / le % train / el % tren; "
    "the % book / das % Buch / le % livre / el % libro",
    "operation": "% plus % equals % / % plus % ist gleich % / % plus % égale % / % más % es igual a %; "
    "% minus % equals % / % minus % ist gleich % / % moins % égale % / % menos % es igual a %; "
    "% times % equals % / % mal % ist gleich % / % fois % égale % / % por % es igual a %",
    # One and many; a row a currency, in the order of _CURRENCIES.
    "money": "% euro, % euros / % Euro, % Euro / % euro, % euros / % euro, % euros; "
    "% dollar, % dollars / % Dollar, % Dollar / % dollar, % dollars / % dólar, % dólares; "
    "% pound, % pounds / % Pfund, % Pfund / %f livre sterling, %f livres sterling / %f libra, %f libras",
    "cents": "% cent, % cents / % Cent, % Cent / % centime, % centimes / % céntimo, % céntimos; "
    "% cent, % cents / % Cent, % Cent / % cent, % cents / % centavo, % centavos; "
    "% penny, % pence / % Penny, % Pence / % penny, % pence / % penique, % peniques",
    "hour": "%, % / %f, %f / %f heure, %f heures / la %f, las %f",
    # {0} hour, {1} next hour, {2} minutes, {3} hour before a noun.
    "clock": "{0} o'clock / {3} Uhr / {0} / {0}; quarter past {0} / Viertel nach {0} / {0} et quart / {0} y cuarto; "
    "half past {0} / halb {1} / {0} et demie / {0} y media; "
    "quarter to {1} / Viertel vor {1} / {1} moins le quart / {1} menos cuarto; "
    "{2} past {0} / {2} nach {0} / {0} {2} / {0} y {2}; {2} to {1} / {2} vor {1} / {1} moins {2} / {1} menos {2}",
    "amount": "{0} and {1} / {0} und {1} / {0} et {1} / {0} con {1}",
    "year": "the year {0} / das Jahr {0} / l'année {0} / el año {0}",
    # {0} cardinal, {1} ordinal, {2} month, {3} ordinal of the first and cardinals after it.
    "day": "the {1} of {2} / der {1} {2} / le {3} {2} / el {0} de {2}",
    "day_on": "the {1} of {2} / am {1}n {2} / le {3} {2} / el {0} de {2}",
    "date": "{0} {1} / {0} {1} / {0} {1} / {0} de {1}",
}

# How often a template is drawn, and its languages' texts. After `_` in a slot: another form of the same value.
_BARE = {"cardinal": 14, "ordinal": 1, "year": 1, "date": 8, "price": 12}
_SENTENCES = (
    (2, "{day} / {day} / {day} / {day}"),
    (4, "{time} / {time} / {time} / {time}"),
    (6, "{thing} costs {price}. / {thing} kostet {price_object}. / {thing} coûte {price}. / {thing} cuesta {price}."),
    (3, "I paid {price} for {thing}. / Ich habe {price_object} für {thing_object} bezahlt."
        " / J'ai payé {price} pour {thing}. / He pagado {price} por {thing}."),
    (5, "{name} bought {counted} for {price}. / {name} hat {counted} für {price_object} gekauft."
        " / {name} a acheté {counted} pour {price}. / {name} ha comprado {counted} por {price}."),
    (2, "we have {counted}. / wir haben {counted}. / nous avons {counted}. / tenemos {counted}."),
    (2, "{vehicle} leaves at {time}. / {vehicle} fährt um {time} ab. / {vehicle} part à {time}."
        " / {vehicle} sale a {time}."),
    (3, "{vehicle} arrives on {weekday} at {time}. / {vehicle} kommt am {weekday} um {time} an."
        " / {vehicle} arrive {weekday} à {time}. / {vehicle} llega el {weekday} a {time}."),
    (5, "{event} begins on {day} at {time}. / {event} beginnt {day_on} um {time}."
        " / {event} commence {day} à {time}. / {event} empieza {day} a {time}."),
    (4, "{place} opens on {weekday} at {time}. / {place} öffnet am {weekday} um {time}."
        " / {place} ouvre {weekday} à {time}. / {place} abre el {weekday} a {time}."),
    (3, "today is {date}. / heute ist {date}. / nous sommes {date}. / hoy es {date}."),
    (4, "{born} born on {date}. / {born} {date_on} geboren. / {born} {date}. / {born} {date}."),
    (1, "{name} is {age} years old. / {name} ist {age} Jahre alt. / {name} a {age} ans. / {name} tiene {age} años."),
    (2, "this is {numbered}. / das ist {numbered}. / c'est {numbered}. / este es {numbered}."),
    (6, "{operation}. / {operation}. / {operation}. / {operation}."),
)  # fmt: skip

# Slots whose parts are drawn evenly; also any slot that has a table.
_RANGES = {"ordinal": [range(1, 100)], "year": [_YEARS], "weekday": [range(7)], "age": [range(2, 100)],
           "time": [range(1, 13), range(0, 60, 5)], "counted": [range(4), range(2, 100)],
           "numbered": [range(3), range(1, 100)]}  # fmt: skip

_Values = Sequence[tuple[Any, ...]]
_Drawn = Callable[[], tuple[Any, ...]]
_Speak = Callable[[_Values], str]
_Template = tuple[list[_Drawn], _Speak, _Speak]


def generate(source_language: str, target_language: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield `count` pairs (source, target) in constant memory; a smaller count gives the first of the same pairs.

    Languages are codes of num2words, `pt_BR` or `pt-BR` alike; a region it does not know stands for its language.
    Raise `ConfigError`, before the first pair, for a language it does not cover and when it is not installed.
    """
    source, target = _language(source_language), _language(target_language)
    draw = _Draw(random.Random(seed))
    if isinstance(source, _Owned) and isinstance(target, _Owned):
        rows = [(weight, text.split(" / ")) for weight, text in _SENTENCES]
        weighted = [(weight, texts[source.column], texts[target.column]) for weight, texts in rows]
        kinds = list(_BARE)
    else:
        weighted, kinds = [], _usable(source, target, draw)
    weighted += [(_BARE[kind], f"{{{kind}}}", f"{{{kind}}}") for kind in kinds]
    deck: list[_Template] = []
    for weight, source_text, target_text in weighted:
        slots = sorted({name.partition("_")[0] for name in re.findall(r"{(\w+)}", source_text)})
        speakers = _speaker(source, source_text, slots), _speaker(target, target_text, slots)
        deck += [([draw.slot(slot) for slot in slots], *speakers)] * weight
    return _pairs(draw, deck, count)


def _pairs(draw: _Draw, deck: Sequence[_Template], count: int) -> Iterator[tuple[str, str]]:
    for _ in range(count):
        slots, source, target = deck[draw.below(len(deck))]
        values = [drawn() for drawn in slots]
        yield source(values), target(values)


def _speaker(language: _Language, text: str, slots: Sequence[str]) -> _Speak:
    """A function from the values of `slots` to the text in words: a sentence, if it ends with a full stop."""
    names = re.findall(r"{(\w+)}", text)
    forms = [(slots.index(name.partition("_")[0]), language.form(name)) for name in names]
    pattern, sentence = re.sub(r"{\w+}", "%s", text), text.endswith(".")

    def speak(values: _Values) -> str:
        said = pattern % tuple([form(*values[slot]) for slot, form in forms])
        return said[0].upper() + said[1:] if sentence else said

    return speak


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"generated numbers need {name}: pip install 'strata-nmt[train]'") from None


def _language(code: str) -> _Language:
    converters = _library("num2words").CONVERTER_CLASSES
    known = {name.lower(): name for name in converters}
    full = code.replace("-", "_").lower()
    for wanted in (full, full.partition("_")[0]):
        if name := known.get(_SAME_LANGUAGE.get(wanted, wanted), ""):
            return (_Owned if name in _OWNED else _Language)(name, converters[name])
    raise ConfigError(f"no numbers in words for language {code!r}; num2words knows {', '.join(sorted(converters))}")


def _spelled(spell: Callable[..., str], values: Iterable[tuple[int, ...]]) -> list[str]:
    """All values in words; nothing if one of them fails, is empty or has digits, or if two are the same."""
    try:
        texts = [spell(*value) for value in values]
    except Exception:  # of any type: num2words raises whatever a gap in a language happens to run into
        return []
    clean = all(texts) and not any(map(str.isdigit, "".join(texts))) and len(set(texts)) == len(texts)
    return texts if clean else []


def _usable(source: _Language, target: _Language, draw: _Draw) -> list[str]:
    """The kinds that both languages spell, each value its own way; limits `draw` to such numbers and currencies."""

    def both(kind: str, values: Iterable[tuple[int, ...]]) -> list[str]:
        probes = list(values)
        return _spelled(target.form(kind), probes) and _spelled(source.form(kind), probes)

    thousands = {1000 * n + rest for n in range(1, 1000) for rest in (0, 1, 903)}
    numbers = {6: sorted({*range(2100), *thousands}), 4: range(10_000), 3: range(1000), 2: range(100)}
    draw.digits = next((digits for digits in numbers if both("cardinal", product(numbers[digits]))), 0)
    if not draw.digits:
        raise ConfigError(f"num2words does not spell the numbers below 100 in {source.code} or {target.code}")
    kinds, taken = ["cardinal"], set(both("cardinal", product(numbers[draw.digits])))
    dates = product(range(1, 29), range(1, 13), (1799, 1905, 2012))
    for kind, values in (("ordinal", product(range(1, 100))), ("year", product(_YEARS)), ("date", dates)):
        if (texts := both(kind, values)) and taken.isdisjoint(texts):
            kinds.append(kind)
            taken.update(texts)
    wholes, draw.cents = (*range(1, 1000), 1234, 9999), False
    draw.currencies = [row for row in range(len(_CURRENCIES)) if both("price", product([row], wholes, [0]))]
    if (prices := both("price", product(draw.currencies, wholes, [0]))) and taken.isdisjoint(prices):
        kinds.append("price")
    return kinds


class _Draw:
    """Draws the values of slots, from one generator. The other fields say what both languages can spell."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator.random
        self.digits, self.cents = 6, True
        self.currencies: Sequence[int] = range(len(_CURRENCIES))

    def below(self, end: int) -> int:
        return int(self._random() * end)

    def slot(self, name: str) -> _Drawn:
        """The function that draws a value of a slot: the arguments of the method that spells it."""
        ranges = _RANGES.get(name) or [range(_TABLES.get(name, "").count(";") + 1)]
        drawn: _Drawn = getattr(self, name, lambda: tuple([values[self.below(len(values))] for values in ranges]))
        return drawn

    def _number(self, digits: int) -> int:
        low = 10 ** (digits - 1) if digits > 1 else 0
        return low + self.below(10**digits - low)

    def cardinal(self) -> tuple[int]:
        return (self._number(min(self.digits, (1, 2, 2, 3, 3, 3, 4, 4, 5, 6)[self.below(10)])),)

    def day(self) -> tuple[int, int]:
        month = 1 + self.below(12)
        return 1 + self.below(28 if month == 2 else 30 if month in (4, 6, 9, 11) else 31), month

    def date(self) -> tuple[int, int, int]:
        return *self.day(), _YEARS[self.below(len(_YEARS))]

    def price(self) -> tuple[int, int, int]:
        """Row of the currency, whole units, cents."""
        digits = (1, 1, 2, 2, 2, 3, 3, 4)[self.below(8)]
        cents = 1 + self.below(99) if self.cents and digits < 4 and self.below(2) else 0
        return self.currencies[self.below(len(self.currencies))], max(1, self._number(digits)), cents

    def operation(self) -> tuple[int, int, int, int]:
        """Row of the operation, its two numbers and the result, which is never below zero."""
        operation = self.below(3)
        a, b = [2 + self.below(11 if operation == 2 else 98) for _ in range(2)]
        return ((0, a, b, a + b), (1, a + b, b, a), (2, a, b, a * b))[operation]


class _Language:
    """A language as num2words and CLDR have it: bare expressions. Spelling raises whatever num2words raises."""

    def __init__(self, code: str, converter: Any) -> None:
        self.code, self._converter = code, converter
        self.cardinal = _cached(lambda number: converter.to_cardinal(number))
        self.ordinal = _cached(lambda number: str(converter.to_ordinal(number)))
        self.year = _cached(lambda year: converter.to_year(year))
        if code in _PLAIN_YEARS or not _spelled(self.year, [(2005,)]):
            self.year = self.cardinal
        self._money = _cached(self._amount)
        babel = _library("babel")
        try:
            locale = babel.Locale.parse(_LOCALES.get(code, code))
        except babel.UnknownLocaleError:
            return  # `date` raises AttributeError then, like any other gap
        self._days: dict[int, str] = locale.days["format"]["wide"]
        self._months = {
            month: normalize(re.sub(r"\d+", lambda digits: self.cardinal(int(digits[0])), name))
            for month, name in locale.months["format"]["wide"].items()
        }
        ordinals = bool(_spelled(self.ordinal, product(range(1, 32))))
        pattern = locale.date_formats["long"].pattern.replace("M月", "MMMM''")  # the month's name has the 月
        self._date = _date_parts(pattern, ordinals)

    def form(self, name: str) -> Callable[..., str]:
        """The method that spells a slot."""
        method: Callable[..., str] = getattr(self, name)
        return method

    def date(self, day: int, month: int, year: int) -> str:
        """The parts of CLDR's long date in their order, in words."""
        spell = {"d": self.cardinal, "d.": self.ordinal, "M": self._months.__getitem__, "y": self.year}
        values = {"d": day, "d.": day, "M": month, "y": year}
        return normalize("".join([spell[part](values[part]) if part in spell else part for part in self._date]))

    def price(self, currency: int, whole: int, cents: int) -> str:
        """Whole units only: how the two parts are joined is not known."""
        return self._money(currency, whole)

    def _amount(self, currency: int, whole: int) -> str:
        if self.code in _WRONG_MONEY[currency]:
            raise NotImplementedError
        amount = self._converter.to_currency(float(whole), currency=_CURRENCIES[currency], separator="|")
        return str(amount).partition("|")[0]  # some languages add "zero cents"


def _cached(spell: Callable[..., str]) -> Callable[..., str]:
    return lru_cache(_CACHE)(lambda *values: normalize(spell(*values)))


def _date_parts(pattern: str, ordinals: bool) -> list[str]:
    """CLDR's pattern of a date as `d` (`d.`: ordinal), `M`, `y` and other text, without commas and abbreviations."""
    parts = []
    for quoted, letters, dot, other in re.findall(r"(?:'([^']*)'|([A-Za-z]+))(\.?)|([^A-Za-z']+)", pattern):
        if letters:
            field = letters[0].replace("L", "M")
            parts.append("d." if field == "d" and dot and ordinals else field if field in "dMy" else "")
        else:
            parts.append(re.sub(r"[.,،-]", " ", other) or ("" if dot else quoted))
    return parts


def _substituted(text: str, patterns: Mapping[str, str]) -> str:
    for pattern, replacement in patterns.items():
        text = re.sub(pattern, replacement, text)
    return text


class _Owned(_Language):
    """A language whose grammar is in the tables above, on top of num2words' spelling of the numbers below 1000."""

    def __init__(self, code: str, converter: Any) -> None:
        super().__init__(code, converter)
        self.column = _OWNED.index(code)
        self._rows = {key: [row.split(" / ")[self.column] for row in rows.split("; ")] for key, rows in _TABLES.items()}
        self._rows["weekday"] = list(self._days.values())
        self._attribute = _cached(self._inflected)
        self._part = _cached(lambda number: _substituted(converter.to_cardinal(number), _CORRECTIONS.get(code, {})))
        self.ordinal = _cached(lambda number: _substituted(converter.to_ordinal(number), _CORRECTIONS.get(code, {})))
        self.cardinal = self._composed
        self.year_in = self.year
        self.year = lambda year: self._rows["year"][0].format(self.year_in(year))
        self.age = lambda years: self._attribute(years, "")
        self.day_on, self.date_on = partial(self.day, table="day_on"), partial(self.date, table="day_on")

    def form(self, name: str) -> Callable[..., str]:
        if name.endswith("_object"):
            spell = self.form(name.removesuffix("_object"))
            return lambda *values: _substituted(spell(*values), _OBJECT.get(self.code, {}))
        return getattr(self, name, None) or self._rows[name].__getitem__

    def _composed(self, number: int) -> str:
        """A cardinal of two cached parts, thousands and the rest, because num2words is slow."""
        rest = number % 1000
        if rest in (0, number):
            return self._part(number)
        joiner = "" if self.code == "de" else " and " if self.code == "en" and rest < 100 else " "
        return self._part(number - rest) + joiner + self._part(rest)

    def _inflected(self, number: int, gender: str) -> str:
        return _substituted(self.cardinal(number), _BEFORE_NOUN.get(self.code + gender, {}))

    def _fill(self, text: str, number: int) -> str:
        mark, gender = ("%f", " f") if "%f" in text else ("%", "")
        return text.replace(mark, self._attribute(number, gender))

    def _one_or_many(self, table: str, row: int, number: int) -> str:
        return self._fill(self._rows[table][row].split(", ")[number != 1], number)

    def price(self, currency: int, whole: int, cents: int) -> str:
        money = self._one_or_many("money", currency, whole)
        return self._rows["amount"][0].format(money, self._one_or_many("cents", currency, cents)) if cents else money

    def day(self, day: int, month: int, table: str = "day") -> str:
        cardinal, ordinal = self.cardinal(day), self.ordinal(day)
        return self._rows[table][0].format(cardinal, ordinal, self._months[month], ordinal if day == 1 else cardinal)

    def date(self, day: int, month: int, year: int, table: str = "day") -> str:
        return self._rows["date"][0].format(self.day(day, month, table), self.year_in(year))

    def time(self, hour: int, minute: int) -> str:
        row = {0: 0, 15: 1, 30: 2, 45: 3}.get(minute, 4 if minute < 30 else 5)
        hours = [self._one_or_many("hour", 0, number) for number in (hour, hour % 12 + 1)]
        hours += [self.cardinal(min(minute, 60 - minute)), self._attribute(hour, "")]
        return self._rows["clock"][row].format(*hours)

    def counted(self, row: int, number: int) -> str:
        return self._fill(self._rows["counted"][row], number)

    def numbered(self, row: int, number: int) -> str:
        text = self._rows["numbered"][row].replace("%", self.ordinal(number))
        return re.sub(r"(prim|terc)ero (?=\w)", r"\1er ", text)  # Spanish, before a noun

    def operation(self, row: int, *numbers: int) -> str:
        return self._rows["operation"][row].replace("%", "%s") % tuple(map(self.cardinal, numbers))
