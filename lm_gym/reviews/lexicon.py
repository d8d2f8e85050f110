"""The things that are reviewed: products, their parts, what can be said of them, and who buys them.

Pure data. It knows nothing of sentences (``rules``) or of scores (``truth``). All clauses agree with
the number of their product, so nothing has to be inflected later.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRODUCTS", "SITUATIONS", "Aspect", "Fact", "Product", "article"]


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One part or quality of a product, with the adjectives that fit it."""

    noun: str
    """Noun phrase after "the", for example ``light``."""
    plural: bool
    """True if the verb after the noun is plural."""
    good: tuple[str, ...]
    """Adjectives of praise."""
    bad: tuple[str, ...]
    """Adjectives of complaint."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A whole clause that reports something."""

    topic: str
    """Subject of the clause: a part, a word shared with the fact that contradicts it, or the clause itself."""
    clause: str
    """For example ``it never flickers``."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A kind of product."""

    name: str
    """The noun, for example ``desk lamp``; already plural where ``plural`` is true."""
    plural: bool
    """True if the product is spoken of as "these" and "they"."""
    aspects: tuple[Aspect, ...]
    """The parts that a specific review names."""
    praise: tuple[Fact, ...]
    """Good things to report."""
    faults: tuple[Fact, ...]
    """Bad things to report."""
    situations: tuple[str, ...]
    """Keys of ``SITUATIONS`` that prompts of this product may name."""


def article(phrase: str) -> str:
    """``a`` or ``an``, whichever ``phrase`` (lower case, not empty) takes here."""
    return "an" if phrase[0] in "aeiou" else "a"


SITUATIONS: dict[str, tuple[str, str]] = {
    "office": ("a small office", "my small office"),
    "student": ("a student room", "my student room"),
    "apartment": ("a first apartment", "my first apartment"),
    "guests": ("a guest room", "our guest room"),
    "kitchen": ("a busy kitchen", "our busy kitchen"),
    "trains": ("long train rides", "long train rides"),
    "commute": ("a daily commute", "my daily commute"),
    "weekends": ("weekend trips", "weekend trips"),
    "camping": ("camping holidays", "camping holidays"),
    "winter": ("cold winters", "cold winters"),
    "family": ("a large family", "our large family"),
    "mornings": ("early mornings", "early mornings"),
    "evenings": ("quiet evenings", "quiet evenings"),
    "rain": ("rainy days", "rainy days"),
    "gym": ("the gym", "the gym"),
    "walks": ("long walks", "long walks"),
}
"""Key: (how a prompt names the situation, how the buyer does)."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _facts(text: str) -> tuple[Fact, ...]:
    pairs = (entry.rpartition(": ") for entry in _words(text))
    return tuple(Fact(topic=topic or clause, clause=clause) for topic, _, clause in pairs)


def _one(noun: str, good: str, bad: str) -> Aspect:
    return Aspect(noun=noun, plural=False, good=_words(good), bad=_words(bad))


def _many(noun: str, good: str, bad: str) -> Aspect:
    return Aspect(noun=noun, plural=True, good=_words(good), bad=_words(bad))


def _product(name: str, aspects: tuple[Aspect, ...], praise: str, faults: str, situations: str) -> Product:
    return Product(
        name=name,
        plural=name.endswith("s"),
        aspects=aspects,
        praise=_facts(praise),
        faults=_facts(faults),
        situations=_words(situations),
    )


PRODUCTS: tuple[Product, ...] = (
    _product(
        "desk lamp",
        (
            _one("light", "warm, bright, steady", "dim, harsh, weak"),
            _one("base", "solid, stable, neat", "wobbly, flimsy, bulky"),
            _one("switch", "smooth, quiet, handy", "stiff, loud, loose"),
            _one("cord", "long, sturdy, flexible", "short, thin, stiff"),
            _one("shade", "pretty, sturdy, elegant", "crooked, thin, ugly"),
        ),
        "it lights the whole desk, flicker: it never flickers, switch: the switch clicks softly",
        "flicker: it flickers at night, the bulb died within a week, it tips over at the slightest touch",
        "office, student, apartment, guests, evenings, family",
    ),
    _product(
        "electric kettle",
        (
            _one("lid", "tight, sturdy, easy to open", "loose, stiff, flimsy"),
            _one("handle", "comfortable, solid, cool", "slippery, loose, hot"),
            _one("spout", "precise, neat, sturdy", "leaky, messy, clumsy"),
            _one("cord", "long, sturdy, flexible", "short, thin, stiff"),
            _one("base", "solid, stable, neat", "wobbly, flimsy, bulky"),
        ),
        "speed: it boils in three minutes, drips: it pours without a drip, it switches off on its own",
        "speed: it takes ages to boil, drips: it drips on every pour, the water tastes of plastic",
        "office, student, apartment, kitchen, mornings, family",
    ),
    _product(
        "office chair",
        (
            _one("seat", "soft, firm, comfortable", "hard, thin, narrow"),
            _one("backrest", "supportive, firm, comfortable", "stiff, low, flimsy"),
            _many("armrests", "soft, sturdy, smooth", "wobbly, hard, low"),
            _many("wheels", "smooth, quiet, sturdy", "noisy, stiff, wobbly"),
            _one("fabric", "soft, breathable, durable", "rough, thin, scratchy"),
        ),
        "my back no longer hurts, it rolls quietly over the carpet, assembly: it was easy to put together",
        "it squeaks all day, seat: the seat sinks every hour, assembly: two screws were missing",
        "office, student, apartment, guests, evenings, family",
    ),
    _product(
        "backpack",
        (
            _many("straps", "soft, sturdy, comfortable", "thin, stiff, weak"),
            _many("zippers", "smooth, sturdy, quiet", "stiff, weak, loose"),
            _many("pockets", "roomy, handy, deep", "small, shallow, tight"),
            _one("fabric", "durable, light, soft", "thin, rough, stiff"),
            _one("lining", "soft, neat, durable", "thin, loose, rough"),
        ),
        "it holds my laptop and lunch, rain: it stays dry in the rain, it never hurts my shoulders",
        "a seam tore in the first week, rain: it leaks in light rain, zippers: the zipper gets stuck every time",
        "trains, commute, weekends, camping, rain, walks",
    ),
    _product(
        "umbrella",
        (
            _one("frame", "sturdy, light, solid", "flimsy, weak, bulky"),
            _one("handle", "comfortable, solid, smooth", "slippery, loose, hard"),
            _one("canopy", "wide, sturdy, elegant", "small, thin, leaky"),
            _one("button", "smooth, handy, sturdy", "stiff, loose, weak"),
            _one("sleeve", "neat, handy, pretty", "tight, thin, ugly"),
        ),
        "wind: it stands up to strong wind, it dries in minutes, it fits in my bag",
        "it leaks at the top, one rib snapped on the first day, wind: it turns inside out in the wind",
        "commute, weekends, camping, rain, walks, family",
    ),
    _product(
        "coffee maker",
        (
            _one("coffee", "hot, rich, smooth", "weak, bitter, watery"),
            _one("pot", "sturdy, elegant, easy to clean", "fragile, leaky, small"),
            _one("filter", "handy, sturdy, easy to clean", "flimsy, messy, leaky"),
            _one("timer", "handy, precise, easy to set", "confusing, slow, loud"),
            _one("water tank", "roomy, handy, easy to fill", "small, leaky, narrow"),
        ),
        "it brews six cups in ten minutes, coffee: the coffee stays warm for an hour, noise: it makes little noise",
        "it spills on the counter, it broke within a month, noise: it beeps all morning",
        "office, student, apartment, kitchen, mornings, family",
    ),
    _product(
        "alarm clock",
        (
            _one("display", "clear, bright, easy to read", "dim, blurry, hard to read"),
            _one("alarm", "gentle, pleasant, clear", "shrill, faint, harsh"),
            _many("buttons", "handy, quiet, sturdy", "tiny, stiff, confusing"),
            _one("speaker", "clear, rich, loud", "tinny, weak, muffled"),
            _one("battery", "strong, reliable, durable", "weak, unreliable, bulky"),
        ),
        "it wakes me gently, time kept: it keeps perfect time, display: I can read it in the dark",
        "time kept: it loses five minutes a day, it went off twice at night, it ticks far too loudly",
        "student, apartment, guests, mornings, weekends, family",
    ),
    _product(
        "pillow",
        (
            _one("filling", "soft, firm, fluffy", "lumpy, hard, thin"),
            _one("cover", "soft, smooth, breathable", "scratchy, rough, thin"),
            _one("shape", "comfortable, supportive, practical", "awkward, flat, bulky"),
            _many("seams", "neat, sturdy, smooth", "loose, rough, weak"),
            _one("smell", "fresh, clean, pleasant", "strong, stale, unpleasant"),
        ),
        "neck: my neck no longer hurts, shape: it keeps its shape all night, it stays cool in summer",
        "shape: it went flat in a week, neck: it makes my neck ache, it sheds feathers everywhere",
        "student, apartment, guests, trains, camping, evenings",
    ),
    _product(
        "board game",
        (
            _many("rules", "clear, simple, clever", "confusing, dull, messy"),
            _many("pieces", "sturdy, pretty, colorful", "flimsy, cheap, ugly"),
            _many("cards", "sturdy, clever, funny", "thin, dull, hard to read"),
            _one("board", "sturdy, colorful, pretty", "thin, flimsy, dull"),
            _one("artwork", "beautiful, colorful, charming", "dull, ugly, dark"),
        ),
        "length: one round takes half an hour, the children ask for it every evening, each round is different",
        "length: one round takes three hours, cards: two cards were missing, the same player wins every time",
        "student, guests, trains, weekends, evenings, family",
    ),
    _product(
        "water bottle",
        (
            _one("lid", "tight, sturdy, easy to open", "loose, stiff, leaky"),
            _one("strap", "soft, sturdy, handy", "thin, stiff, weak"),
            _one("coating", "smooth, durable, pretty", "thin, rough, ugly"),
            _one("opening", "wide, smooth, easy to clean", "narrow, rough, hard to clean"),
            _one("size", "handy, practical, generous", "awkward, small, clumsy"),
        ),
        "it keeps water cold all day, leaks: it never leaks in my bag, it fits my cup holder",
        "leaks: it leaks in my bag, it smells of plastic, coating: the paint came off within a week",
        "trains, commute, weekends, camping, gym, walks",
    ),
    _product(
        "headphones",
        (
            _one("sound", "clear, rich, balanced", "muffled, thin, tinny"),
            _many("ear pads", "soft, comfortable, breathable", "hard, scratchy, tight"),
            _one("battery", "strong, reliable, durable", "weak, unreliable, bulky"),
            _one("headband", "soft, light, sturdy", "tight, stiff, flimsy"),
            _one("microphone", "clear, reliable, handy", "faint, muffled, unreliable"),
        ),
        "they block out the noise, they last a full week on one charge, signal: they connect in a second",
        "signal: they lose the signal every hour, they hurt my ears, the left side went silent",
        "office, student, trains, commute, gym, evenings",
    ),
    _product(
        "hiking boots",
        (
            _many("soles", "sturdy, thick, flexible", "thin, slippery, stiff"),
            _many("laces", "long, strong, sturdy", "short, weak, slippery"),
            _one("leather", "soft, durable, smooth", "stiff, thin, rough"),
            _one("lining", "warm, soft, breathable", "scratchy, thin, rough"),
            _one("ankle support", "firm, comfortable, reliable", "weak, stiff, flimsy"),
        ),
        "water: they keep my feet dry, they grip well on wet rock, wear: they fit well from the first day",
        "water: they let water in, wear: they gave me blisters, soles: the soles came off within a month",
        "weekends, camping, winter, rain, walks, family",
    ),
    _product(
        "running shoes",
        (
            _many("soles", "light, springy, flexible", "thin, slippery, stiff"),
            _many("laces", "long, strong, sturdy", "short, weak, slippery"),
            _one("cushioning", "soft, springy, comfortable", "hard, thin, flat"),
            _one("fit", "snug, comfortable, reliable", "tight, loose, awkward"),
            _many("heels", "snug, soft, supportive", "loose, hard, rough"),
        ),
        "my knees no longer hurt, they dry fast after rain, they feel light on long runs",
        "they rub at the heel, they wore out in two months, they squeak on every step",
        "weekends, mornings, evenings, rain, gym, walks",
    ),
    _product(
        "kitchen knives",
        (
            _many("blades", "sharp, precise, sturdy", "dull, rough, flimsy"),
            _many("handles", "comfortable, smooth, solid", "slippery, loose, hard"),
            _one("steel", "strong, smooth, durable", "weak, soft, rough"),
            _one("balance", "steady, pleasant, comfortable", "awkward, clumsy, odd"),
            _one("block", "sturdy, elegant, stable", "wobbly, bulky, ugly"),
        ),
        "they cut tomatoes with ease, sharpness: they stay sharp for months, they slice bread without a crumb",
        "they rust after one wash, sharpness: they went dull in a week, the tips bend far too easily",
        "student, apartment, kitchen, guests, camping, family",
    ),
    _product(
        "winter gloves",
        (
            _one("lining", "warm, soft, cozy", "thin, scratchy, rough"),
            _many("cuffs", "long, snug, soft", "short, loose, tight"),
            _many("fingers", "flexible, warm, roomy", "stiff, tight, short"),
            _many("seams", "neat, sturdy, smooth", "loose, rough, weak"),
            _one("grip", "firm, reliable, strong", "weak, slippery, unreliable"),
        ),
        "warmth: they keep my hands warm, I can use my phone with them, water: they dry overnight",
        "warmth: my fingers freeze within minutes, seams: a seam tore on the first day, water: they soak up water",
        "commute, weekends, winter, mornings, walks, rain",
    ),
    _product(
        "curtains",
        (
            _one("fabric", "soft, thick, elegant", "thin, stiff, rough"),
            _one("color", "rich, warm, pretty", "dull, ugly, pale"),
            _many("rings", "smooth, sturdy, quiet", "flimsy, noisy, stiff"),
            _many("hems", "neat, straight, sturdy", "crooked, loose, uneven"),
            _one("pattern", "pretty, elegant, charming", "ugly, dull, busy"),
        ),
        "sun: they block out the morning sun, they hang without a crease, washing: they are easy to wash",
        "sun: they let in far too much light, washing: they shrank in the wash, they smell of plastic",
        "office, student, apartment, guests, winter, kitchen",
    ),
)
"""Every product kind, in a fixed order."""
