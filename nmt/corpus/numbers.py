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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from nmt.errors import ConfigError
from nmt.text.normalize import normalize

_CACHE = 1 << 16  # spelled values kept a language and kind: bounds the memory, whatever the number of pairs
_CURRENCIES = ("EUR", "USD", "GBP")
_YEARS = range(1700, 2100)
_SAME_LANGUAGE = {"kk": "kz", "nb": "no", "nn": "no"}  # code: the code of num2words
_LOCALES = {"kz": "kk", "sr": "sr_Latn"}  # num2words: CLDR, where the names or the scripts differ
_PLAIN_YEARS = {"ja", "ko"}  # num2words gives era names, or the word for year that CLDR's date has already

# Rows of one text a language: English / German / French / Spanish. `%` is the number, `%f` a feminine number.
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
    # Masculine in French and Spanish, because of the participle.
    "building": "the bridge / die Brücke / le pont / el puente; the castle / das Schloss / le château / el castillo; "
    "the theatre / das Theater / le théâtre / el teatro",
    "born": "Anna was / Anna wurde / Anna est née / Anna nació; Paul was / Paul wurde / Paul est né / Paul nació; "
    "Laura was / Laura wurde / Laura est née / Laura nació; David was / David wurde / David est né / David nació",
    "name": "Anna / Anna / Anna / Anna; Paul / Paul / Paul / Paul; "
    "Laura / Laura / Laura / Laura; David / David / David / David",
    "part": "in the morning / morgens / du matin / de la mañana; "
    "in the afternoon / nachmittags / de l'après-midi / de la tarde; in the evening / abends / du soir / de la noche",
    "counted": "% books / % Bücher / % livres / % libros; % chairs / % Stühle / %f chaises / %f sillas; "
    "% letters / % Briefe / %f lettres / %f cartas; % apples / % Äpfel / %f pommes / %f manzanas",
    "numbered": "the % day / der % Tag / le % jour / el % día; the % book / das % Buch / le % livre / el % libro; "
    "the % train / der % Zug / le % train / el % tren; the % chapter / das % Kapitel / le % chapitre / el % capítulo",
    "operation": "plus / plus / plus / más; minus / minus / moins / menos; times / mal / fois / por",
    # In the order of _CURRENCIES: one, many.
    "money": "% euro, % euros / % Euro, % Euro / % euro, % euros / % euro, % euros; "
    "% dollar, % dollars / % Dollar, % Dollar / % dollar, % dollars / % dólar, % dólares; "
    "% pound, % pounds / % Pfund, % Pfund / %f livre sterling, %f livres sterling / %f libra, %f libras",
    "cents": "% cent, % cents / % Cent, % Cent / % centime, % centimes / % céntimo, % céntimos; "
    "% cent, % cents / % Cent, % Cent / % cent, % cents / % centavo, % centavos; "
    "% penny, % pence / % Penny, % Pence / % penny, % pence / % penique, % peniques",
}

# How often a template is drawn, and its languages' texts. After `_` in a slot: another form of the same value.
_BARE = {"cardinal": 14, "ordinal": 1, "year": 1, "date": 8, "price": 12}
_SENTENCES = (
    (2, "{day} / {day} / {day} / {day}"),
    (6, "{time} / {time} / {time} / {time}"),
    (6, "{thing} costs {price}. / {thing} kostet {price}. / {thing} coûte {price}. / {thing} cuesta {price}."),
    (3, "I paid {price} for {thing}. / Ich habe {price} für {thing_object} bezahlt."
        " / J'ai payé {price} pour {thing}. / He pagado {price} por {thing}."),
    (5, "{name} bought {counted} for {price}. / {name} hat {counted} für {price} gekauft."
        " / {name} a acheté {counted} pour {price}. / {name} ha comprado {counted} por {price}."),
    (2, "we have {counted}. / wir haben {counted}. / nous avons {counted}. / tenemos {counted}."),
    (2, "{vehicle} leaves at {time}. / {vehicle} fährt um {time} ab. / {vehicle} part à {time}."
        " / {vehicle} sale a {time}."),
    (4, "{vehicle} arrives on {weekday} at {time}. / {vehicle} kommt am {weekday} um {time} an."
        " / {vehicle} arrive {weekday} à {time}. / {vehicle} llega el {weekday} a {time}."),
    (5, "{event} begins on {day} at {time}. / {event} beginnt {day_on} um {time}."
        " / {event} commence {day} à {time}. / {event} empieza {day} a {time}."),
    (2, "{event} ends at {time}. / {event} endet um {time}. / {event} se termine à {time}. / {event} termina a {time}."),
    (3, "{place} opens on {weekday} at {time}. / {place} öffnet am {weekday} um {time}."
        " / {place} ouvre {weekday} à {time}. / {place} abre el {weekday} a {time}."),
    (2, "{place} closes at {time}. / {place} schließt um {time}. / {place} ferme à {time}. / {place} cierra a {time}."),
    (3, "today is {date}. / heute ist {date}. / nous sommes {date}. / hoy es {date}."),
    (4, "{born} born on {date}. / {born} {date_on} geboren. / {born} {date}. / {born} {date}."),
    (2, "{building} was built in {year_in}. / {building} wurde im Jahr {year_in} gebaut."
        " / {building} a été construit en {year_in}. / {building} fue construido en {year_in}."),
    (1, "{name} is {age} years old. / {name} ist {age} Jahre alt. / {name} a {age} ans. / {name} tiene {age} años."),
    (2, "this is {numbered}. / das ist {numbered}. / c'est {numbered}. / este es {numbered}."),
    (6, "{operation}. / {operation}. / {operation}. / {operation}."),
)  # fmt: skip

_Values = Sequence[tuple[Any, ...]]
_Drawn = Callable[[], tuple[Any, ...]]
_Speak = Callable[[_Values], str]


def generate(source_language: str, target_language: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield `count` pairs (source, target) in constant memory; a smaller count gives the first of the same pairs.

    Languages are codes of num2words, `pt_BR` or `pt-BR` alike; a region it does not know stands for its language.
    Raise `ConfigError`, before the first pair, for a language it does not cover and when it is not installed.
    """
    source, target = _language(source_language), _language(target_language)
    draw = _Draw(random.Random(seed))
    if isinstance(source, _Owned) and isinstance(target, _Owned):
        weighted = [(weight, f"{{{kind}}}", f"{{{kind}}}") for kind, weight in _BARE.items()]
        for weight, row in _SENTENCES:
            texts = row.split(" / ")
            weighted.append((weight, texts[source.column], texts[target.column]))
    else:
        weighted = [(_BARE[kind], f"{{{kind}}}", f"{{{kind}}}") for kind in _usable(source, target, draw)]
    deck = []
    for weight, source_text, target_text in weighted:
        slots = sorted({name.partition("_")[0] for name in _names(source_text)})
        speakers = _speaker(source, source_text, slots), _speaker(target, target_text, slots)
        deck += [([draw.slot(slot) for slot in slots], *speakers)] * weight
    return _pairs(draw, deck, count)


def _pairs(draw: _Draw, deck: Sequence[tuple[Sequence[_Drawn], _Speak, _Speak]], count: int) -> Iterator[tuple[str, str]]:
    for _ in range(count):
        slots, source, target = deck[draw.below(len(deck))]
        values = [drawn() for drawn in slots]
        yield source(values), target(values)


def _names(text: str) -> list[str]:
    return re.findall(r"{(\w+)}", text)


def _speaker(language: _Language, text: str, slots: Sequence[str]) -> _Speak:
    """A function from the values of `slots` to the text in words: a sentence, if it ends with a full stop."""
    forms = [(slots.index(name.partition("_")[0]), language.form(name)) for name in _names(text)]
    pattern = re.sub(r"{\w+}", "%s", text)

    def expression(values: _Values) -> str:
        return pattern % tuple([form(*values[slot]) for slot, form in forms])

    def sentence(values: _Values) -> str:
        said = expression(values)
        return said[0].upper() + said[1:]

    return sentence if text.endswith(".") else expression


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
        name = known.get(_SAME_LANGUAGE.get(wanted, wanted))
        if name is not None:
            return {"en": _English, "de": _German, "fr": _French, "es": _Spanish}.get(name, _Language)(
                name, converters[name]
            )
    raise ConfigError(f"no numbers in words for language {code!r}; num2words knows {', '.join(sorted(converters))}")


def _spelled(spell: Callable[..., str], values: Iterable[tuple[int, ...]]) -> list[str] | None:
    """All values in words, or None if one of them fails, is empty or has digits, or if two are the same."""
    texts = []
    for value in values:
        try:
            text = spell(*value)
        except Exception:  # of any type: num2words raises whatever a gap in a language happens to run into
            return None
        if not text or any(character.isdigit() for character in text):
            return None
        texts.append(text)
    return texts if len(set(texts)) == len(texts) else None


def _usable(source: _Language, target: _Language, draw: _Draw) -> list[str]:
    """The kinds that both languages spell, each value its own way; limits `draw` to such numbers and currencies."""
    thousands = [1000 * n + rest for n in range(1, 1000) for rest in (0, 1, 903)]
    probes = {6: [*range(2100), *(n for n in thousands if n >= 2100)], 4: range(10_000), 3: range(1000), 2: range(100)}

    def clean(kind: str, values: list[tuple[int, ...]]) -> list[str]:
        if _spelled(target.form(kind), values) is None:
            return []
        return _spelled(source.form(kind), values) or []

    for draw.digits, numbers in probes.items():
        taken = set(clean("cardinal", [(n,) for n in numbers]))
        if taken:
            break
    else:
        raise ConfigError(f"num2words does not spell the numbers below 100 in {source.code} or {target.code}")
    kinds = ["cardinal"]
    dates = [(day, month, year) for day in range(1, 29) for month in range(1, 13) for year in (1799, 1905, 2012)]
    for kind, values in {"ordinal": [(n,) for n in range(1, 100)], "year": [(n,) for n in _YEARS], "date": dates}.items():
        texts = clean(kind, values)
        if texts and taken.isdisjoint(texts):
            kinds.append(kind)
            taken.update(texts)
    amounts = [(whole, cents) for whole in (1, 2, 3, 5, 11, 21, 100, 101, 999, 1234) for cents in (0, 1, 2, 5, 11, 99)]
    draw.currencies = [row for row in range(len(_CURRENCIES)) if clean("price", [(row, *amount) for amount in amounts])]
    if clean("price", [(row, *amount) for row in draw.currencies for amount in amounts]):
        kinds.append("price")
    return kinds


class _Draw:
    """Draws the values of slots, from one generator. `digits` and `currencies` say what both languages can spell."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator.random
        self.digits = 6
        self.currencies: Sequence[int] = range(len(_CURRENCIES))

    def below(self, end: int) -> int:
        """An integer in [0, end)."""
        return int(self._random() * end)

    def slot(self, name: str) -> _Drawn:
        """The function that draws a value of a slot: the arguments of the method that spells it."""
        rows = _TABLES.get(name, "").count(";") + 1
        drawn: _Drawn = getattr(self, name, lambda: (self.below(rows),))
        return drawn

    def _number(self, digits: int) -> int:
        low = 10 ** (digits - 1) if digits > 1 else 0
        return low + self.below(10**digits - low)

    def cardinal(self) -> tuple[int]:
        return (self._number(min(self.digits, (1, 2, 2, 3, 3, 3, 4, 4, 5, 6)[self.below(10)])),)

    def ordinal(self) -> tuple[int]:
        return (1 + self.below(99),)

    def year(self) -> tuple[int]:
        return (_YEARS.start + self.below(len(_YEARS)),)

    def day(self) -> tuple[int, int]:
        month = 1 + self.below(12)
        return 1 + self.below(28 if month == 2 else 30 if month in (4, 6, 9, 11) else 31), month

    def date(self) -> tuple[int, int, int]:
        return *self.day(), *self.year()

    def weekday(self) -> tuple[int]:
        return (self.below(7),)

    def time(self) -> tuple[int, int, int | None]:
        """Hour of 1 to 12, minute, and the part of the day: none, or one that all four languages would call so."""
        minute = 5 * self.below(12) if self.below(4) else self.below(60)
        part = self.below(6)
        if part > 2:
            return 1 + self.below(12), minute, None
        first, last = ((5, 11), (1, 5), (8, 10))[part]
        return first + self.below(last - first + 1), minute, part

    def price(self) -> tuple[int, int, int]:
        """Row of the currency, whole units, cents."""
        digits = (1, 1, 2, 2, 2, 3, 3, 4)[self.below(8)]
        cents = 0 if digits == 4 or self.below(2) else 1 + self.below(99)
        return self.currencies[self.below(len(self.currencies))], max(1, self._number(digits)), cents

    def age(self) -> tuple[int]:
        return (2 + self.below(98),)

    def counted(self) -> tuple[int, int]:
        return self.below(4), 2 + self.below(98)

    def numbered(self) -> tuple[int, int]:
        return self.below(4), 1 + self.below(99)

    def operation(self) -> tuple[int, int, int, int]:
        """Row of the operation, its two numbers and the result, never below zero."""
        operation = self.below(3)
        if operation == 2:
            first, second = 2 + self.below(11), 2 + self.below(11)
            return operation, first, second, first * second
        first, second = 1 + self.below(99), 1 + self.below(99)
        if operation == 0:
            return operation, first, second, first + second
        return operation, max(first, second), min(first, second), abs(first - second)


class _Language:
    """A language as num2words and CLDR have it: bare expressions. Spelling raises whatever num2words raises."""

    def __init__(self, code: str, converter: Any) -> None:
        self.code, self._converter = code, converter
        self._cardinals = lru_cache(_CACHE)(lambda number: normalize(converter.to_cardinal(number)))
        self._ordinals = lru_cache(_CACHE)(lambda number: normalize(str(converter.to_ordinal(number))))
        self._years = lru_cache(_CACHE)(lambda year: normalize(converter.to_year(year)))
        self._amounts = lru_cache(_CACHE)(self._amount)
        if code in _PLAIN_YEARS or _spelled(self._years, [(2005,)]) is None:
            self._years = self._cardinals
        babel = _library("babel")
        self._months: dict[int, str] = {}
        self._weekdays: dict[int, str] = {}
        self._date: list[str] = []
        try:
            locale = babel.Locale.parse(_LOCALES.get(code, code))
        except babel.UnknownLocaleError:
            return  # no dates, then
        for month, name in locale.months["format"]["wide"].items():
            self._months[month] = normalize(re.sub(r"\d+", lambda match: self.cardinal(int(match[0])), name))
        self._weekdays = dict(locale.days["format"]["wide"])
        self._date = _date_parts(locale.date_formats["long"].pattern)
        if _spelled(self._ordinals, [(day,) for day in range(1, 32)]) is None:
            self._date = ["d" if part == "d." else part for part in self._date]

    def form(self, name: str) -> Callable[..., str]:
        """The method that spells a slot."""
        method: Callable[..., str] = getattr(self, name)
        return method

    def cardinal(self, number: int) -> str:
        return self._cardinals(number)

    def ordinal(self, number: int) -> str:
        return self._ordinals(number)

    def year(self, year: int) -> str:
        return self._years(year)

    def date(self, day: int, month: int, year: int) -> str:
        """The parts of CLDR's long date in their order, in words."""
        if not self._date:
            return ""
        parts = {"d": self.cardinal(day), "M": self._months[month], "y": self.year(year)}
        return normalize("".join([self.ordinal(day) if part == "d." else parts.get(part, part) for part in self._date]))

    def price(self, currency: int, whole: int, cents: int) -> str:
        """Whole units, and cents if there are any."""
        money = self._amounts(currency, whole, 0)[0]
        if not cents:
            return money
        _, joiner, small = self._amounts(currency, 1, cents)
        return money + joiner + small if small else self._amounts(currency, whole, cents)[0]

    def _amount(self, currency: int, whole: int, cents: int) -> tuple[str, str, str]:
        """The amount as money, joiner and cents; the last two empty where num2words does not tell them apart."""
        value, code = whole + cents / 100, _CURRENCIES[currency]
        money, mark, small = self._converter.to_currency(value, currency=code, separator="|").partition("|")
        if not mark:
            return normalize(money), "", ""
        money, small = money.rstrip(), small.lstrip()
        joiner = self._converter.to_currency(value, currency=code)[len(money) : -len(small)]
        return normalize(money), re.sub(r"[\s,]+", " ", joiner), normalize(small)


def _date_parts(pattern: str) -> list[str]:
    """CLDR's pattern of a date as `d` (`d.` for an ordinal), `M`, `y` and literal text without abbreviations."""
    parts = []
    for quoted, letters, dot, other in re.findall(r"(?:'([^']*)'|([A-Za-z]+))(\.?)|([^A-Za-z']+)", pattern):
        field = letters[:1].replace("L", "M")
        if field == "d":
            parts.append("d" + dot)
        elif field in ("M", "y"):
            parts.append(field)
        else:
            parts.append(re.sub(r"[.,،-]", " ", other) or ("" if dot or letters else quoted))
    return parts


class _Owned(_Language):
    """A language whose grammar is written here, on top of num2words' spelling of the numbers below 1000."""

    column: ClassVar[int]
    equals: ClassVar[str]

    def __init__(self, code: str, converter: Any) -> None:
        super().__init__(code, converter)
        self._small = [normalize(converter.to_cardinal(number)) for number in range(1000)]
        self._rows = {
            name: [row.split(" / ")[self.column] for row in rows.split("; ")] for name, rows in _TABLES.items()
        }
        self._units = [[form.split(", ") for form in self._rows[name]] for name in ("money", "cents")]

    def form(self, name: str) -> Callable[..., str]:
        found: Callable[..., str] = getattr(self, name, None) or self._rows[name].__getitem__
        return found

    def cardinal(self, number: int) -> str:
        return self._small[number] if number < 1000 else self._thousands(*divmod(number, 1000))

    def _thousands(self, thousands: int, rest: int) -> str:
        raise NotImplementedError

    def _attribute(self, number: int, feminine: bool = False) -> str:
        """A cardinal before a noun."""
        return self.cardinal(number)

    def _fill(self, text: str, number: int) -> str:
        feminine = text.startswith("%f")
        return self._attribute(number, feminine) + text[1 + feminine :]

    def _clock(self, hour: int, minute: int) -> str:
        """A time on a clock of twelve hours."""
        raise NotImplementedError

    def time(self, hour: int, minute: int, part: int | None) -> str:
        clock = self._clock(hour, minute)
        return clock if part is None else f"{clock} {self._rows['part'][part]}"

    def weekday(self, day: int) -> str:
        return self._weekdays[day]

    def age(self, years: int) -> str:
        return self._attribute(years)

    def counted(self, row: int, number: int) -> str:
        return self._fill(self._rows["counted"][row], number)

    def numbered(self, row: int, number: int) -> str:
        return self._rows["numbered"][row].replace("%", self.ordinal(number))

    def price(self, currency: int, whole: int, cents: int) -> str:
        money, small = self._units
        text = self._fill(money[currency][whole != 1], whole)
        return f"{text} {self.joiner} {self._fill(small[currency][cents != 1], cents)}" if cents else text

    def operation(self, row: int, first: int, second: int, result: int) -> str:
        sign = self._rows["operation"][row]
        return f"{self.cardinal(first)} {sign} {self.cardinal(second)} {self.equals} {self.cardinal(result)}"
