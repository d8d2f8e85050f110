"""The rule tables of the language of reviews: one set of tables that both writes and reads it.

Notation of a rule (one right-hand side): plain words and punctuation stand for themselves;
``{it}`` is filled in by the number of the product; ``<NAME>`` is another rule; ``[...]`` is a mark,
which is never printed but is reported by sampling and by parsing alike:

    [+0.6], [-0.9]   an opinion and its strength in [-1, 1]
    [aspect light]   names a part of the product      [detail ...]    a concrete observation
    [word warm]      the opinion word that was used   [situation gym] speaks to that situation
    [product]        names the product

A leading ``3x`` is the rule's weight when sampling (1 where absent). Sentences are written without
their capital letter; ``grammar`` puts it on.
"""

from __future__ import annotations

from .lexicon import SITUATIONS, Aspect, Product, article

__all__ = ["SENTENCES", "rules_for"]

SENTENCES: dict[str, tuple[str, ...]] = {
    "OPEN_GREAT": (
        "4x [+1.0] I love {this} [product] {product}.",
        "3x [+1.0] {this} [product] {product} {is} <SUPERB>.",
        "3x [+1.0] I bought {this} [product] {product} <WHEN> and I love {them}.",
        "2x [+1.0] I am delighted with {this} [product] {product}.",
        "2x [+1.0] what <SUPERB_PRODUCT>!",
        "2x [+1.0] {this} {is} the best [product] {product} I have ever owned.",
    ),
    "OPEN_GOOD": (
        "3x [+0.6] I am happy with {this} [product] {product}.",
        "3x [+0.6] I bought {this} [product] {product} <WHEN> and I am happy with {them}.",
        "2x [+0.6] I really like {this} [product] {product}.",
        "2x [+0.6] {this} [product] {product} {was} a good buy.",
        "2x [+0.6] {this} [product] {product} {does} just what I hoped for.",
    ),
    "OPEN_MIXED": (
        "3x [+0.0] I have mixed feelings about {this} [product] {product}.",
        "2x [+0.0] {this} [product] {product} {is} fine, but nothing special.",
        "2x [+0.0] I bought {this} [product] {product} <WHEN>, and I am still not sure.",
        "2x [+0.0] {this} [product] {product} {has} good and bad sides.",
    ),
    "OPEN_POOR": (
        "3x [-0.6] I am not happy with {this} [product] {product}.",
        "2x [-0.6] I expected more from {this} [product] {product}.",
        "2x [-0.6] I bought {this} [product] {product} <WHEN> and I regret it.",
        "2x [-0.6] {this} [product] {product} {was} a poor choice.",
    ),
    "OPEN_AWFUL": (
        "3x [-1.0] {this} [product] {product} {is} <DREADFUL>.",
        "2x [-1.0] what <DREADFUL_PRODUCT>!",
        "2x [-1.0] {this} {is} the worst [product] {product} I have ever owned.",
        "2x [-1.0] I bought {this} [product] {product} <WHEN> and {it} {was} a complete letdown.",
    ),
    "BODY_GOOD": (
        "6x <PRAISE>.",
        "5x <PRAISE>, and <PRAISE>.",
        "2x I like that <PRAISE_FACT>.",
        "2x best of all, <PRAISE_FACT>.",
        "2x after <TIME>, <PRAISE_PART>.",
        "2x I have used {them} for <SPAN>, and <PRAISE_PART>.",
        "1x I have used {them} every day for <SPAN>, and <PRAISE_PART>.",
        "2x <PRAISE_PART>, which I like a lot.",
        "1x what I like most is that <PRAISE_FACT>.",
        "2x <HOW_GOOD>.",
        "2x <PART> and <PART> are both <GENERAL_GOOD>.",
        "1x [+1.0] after <TIME>, I still love {them}.",
    ),
    "BODY_BAD": (
        "6x <FAULT>.",
        "5x <FAULT>, and <FAULT>.",
        "2x sadly, <FAULT>.",
        "2x worst of all, <FAULT_FACT>.",
        "2x I have used {them} for <SPAN>, and <FAULT_PART>.",
        "2x <FAULT_PART>, which is a pity.",
        "2x <HOW_BAD>.",
        "2x <PART> and <PART> are both <GENERAL_BAD>.",
        "1x what bothers me most is that <FAULT_FACT>.",
    ),
    "BODY_MIXED": (
        "4x <PRAISE>, but <FAULT>.",
        "3x <FAULT>, but <PRAISE>.",
        "2x although <FAULT>, <PRAISE>.",
        "2x although <PRAISE>, <FAULT>.",
    ),
    "FIT_GOOD": (
        "3x [+1.0] {it} {is} perfect for <SITUATION>.",
        "2x [+0.8] {it} {is} just right for <SITUATION>.",
        "2x [+0.6] {it} {is} a good choice for <SITUATION>.",
        "2x [+0.8] for <SITUATION>, {it} {is} ideal.",
        "2x <PRAISE>, so [+0.8] {it} {is} ideal for <SITUATION>.",
    ),
    "FIT_MIXED": (
        "1x [+0.1] for <SITUATION>, {it} {is} good enough.",
        "1x [+0.0] {it} {is} just about fine for <SITUATION>.",
    ),
    "FIT_BAD": (
        "2x [-0.8] {it} {is} no good for <SITUATION>.",
        "2x [-0.6] for <SITUATION>, I would choose something else.",
        "2x <FAULT_PART>, so [-0.8] {it} {is} not right for <SITUATION>.",
    ),
    "ASIDE": (
        "I do not write many reviews.",
        "there is not much more to say.",
        "the box arrived on time.",
        "I do not know much about such things.",
        "my sister told me about {them}.",
        "my neighbor asked me about {them}.",
        "maybe I will write more later.",
        "I bought {them} in a hurry.",
        "I saw {them} in a shop window first.",
    ),
    "END_GREAT": (
        "3x [+1.0] five stars.",
        "2x [+1.0] I recommend {them} to everyone.",
        "2x [+1.0] I could not be happier.",
        "2x [+1.0] {it} {is} worth every penny.",
        "2x [+1.0] I would buy {them} again in a heartbeat.",
    ),
    "END_GOOD": (
        "3x [+0.6] four stars.",
        "3x [+0.6] I would buy {them} again.",
        "2x [+0.6] {it} {is} well worth the price.",
        "2x [+0.6] I am glad that I bought {them}.",
    ),
    "END_MIXED": (
        "3x [+0.0] three stars.",
        "2x [+0.0] {it} {is} fine for the price.",
        "1x [-0.1] I would wait for a sale.",
        "1x [-0.1] I might try something else next time.",
    ),
    "END_POOR": (
        "3x [-0.6] two stars.",
        "3x [-0.6] I would not buy {them} again.",
        "2x [-0.6] {it} {is} not worth the price.",
    ),
    "END_AWFUL": (
        "3x [-1.0] one star.",
        "2x [-1.0] I sent {them} back.",
        "2x [-1.0] I want my money back.",
        "2x [-1.0] {it} {is} a waste of money.",
    ),
}
"""Every kind of sentence. A parse starts from all of them, a sample from one."""

_SHARED: dict[str, tuple[str, ...]] = {
    "PRAISE": ("5x <PRAISE_PART>", "2x <PRAISE_FACT>"),
    "FAULT": ("5x <FAULT_PART>", "2x <FAULT_FACT>"),
    "SUPERB": ("[word excellent] excellent", "[word wonderful] wonderful", "[word superb] superb"),
    "DREADFUL": ("[word awful] awful", "[word terrible] terrible", "[word dreadful] dreadful"),
    "GENERAL_GOOD": (
        "[+0.6] [word good] good",
        "[+0.6] [word lovely] lovely",
        "[+1.0] [word excellent] excellent",
        "[+1.0] [word superb] superb",
    ),
    "GENERAL_BAD": (
        "[-0.6] [word poor] poor",
        "[-0.6] [word disappointing] disappointing",
        "[-1.0] [word awful] awful",
        "[-1.0] [word useless] useless",
    ),
    "WHEN": (
        "[detail when] last month",
        "[detail when] last summer",
        "[detail when] in spring",
        "[detail when] two weeks ago",
    ),
    "SPAN": (
        "[detail time] two weeks",
        "[detail time] a month",
        "[detail time] two months",
        "[detail time] half a year",
    ),
    "TIME": (
        "4x <SPAN>",
        "1x [detail time] a few days",
        "1x [detail time] two weeks of daily use",
        "1x [detail time] a month of daily use",
    ),
}

_NUMBER: dict[bool, dict[str, str]] = {
    False: {"it": "it", "them": "it", "this": "this", "is": "is", "was": "was", "has": "has"} | {"does": "does"},
    True: {"it": "they", "them": "them", "this": "these", "is": "are", "was": "were"} | {"has": "have", "does": "do"},
}


def _superlative(word: str, product: Product) -> str:
    phrase = f"[word {word}] {word} [product] {product.name}"
    return phrase if product.plural else f"{article(word)} {phrase}"


def _aspect_rules(aspect: Aspect) -> dict[str, tuple[str, ...]]:
    noun, verb = aspect.noun, "are" if aspect.plural else "is"
    subject = f"[aspect {noun}] the {noun}"
    return {
        f"GOOD {noun}": tuple(f"[word {word}] {word}" for word in aspect.good),
        f"BAD {noun}": tuple(f"[word {word}] {word}" for word in aspect.bad),
        f"PRAISE {noun}": (
            f"5x [+0.6] {subject} {verb} <GOOD {noun}>",
            f"3x [+0.8] {subject} {verb} very <GOOD {noun}>",
            f"2x [+0.8] {subject} {verb} really <GOOD {noun}>",
            f"1x [+0.5] {subject} {verb} quite <GOOD {noun}>",
            f"1x [+1.0] {subject} {verb} wonderfully <GOOD {noun}>",
            f"1x [+0.7] {subject} {verb} better than I expected",
            f"1x [+1.0] I love [aspect {noun}] the {noun}",
        ),
        f"FAULT {noun}": (
            f"5x [-0.6] {subject} {verb} <BAD {noun}>",
            f"3x [-0.9] {subject} {verb} far too <BAD {noun}>",
            f"2x [-0.8] {subject} {verb} very <BAD {noun}>",
            f"2x [-0.4] {subject} {verb} a bit <BAD {noun}>",
            f"1x [-1.0] {subject} {verb} terribly <BAD {noun}>",
            f"1x [-0.7] {subject} {verb} worse than I expected",
        ),
        f"HOW_GOOD {noun}": (f"[+0.9] I love how <GOOD {noun}> {subject} {verb}",),
        f"HOW_BAD {noun}": (f"[-0.8] I was surprised by how <BAD {noun}> {subject} {verb}",),
    }


def rules_for(product: Product) -> dict[str, tuple[str, ...]]:
    """All rules, with ``{...}`` filled in, of the language in which ``product`` is reviewed.

    Returns a new dictionary from the rule's name to its right-hand sides; the rule ``SENTENCE`` is
    any sentence.
    """
    nouns = [aspect.noun for aspect in product.aspects]
    rules = SENTENCES | _SHARED
    for aspect in product.aspects:
        rules = rules | _aspect_rules(aspect)
    rules |= {
        "SENTENCE": tuple(f"<{name}>" for name in SENTENCES),
        "PRAISE_PART": tuple(f"<PRAISE {noun}>" for noun in nouns),
        "FAULT_PART": tuple(f"<FAULT {noun}>" for noun in nouns),
        "HOW_GOOD": tuple(f"<HOW_GOOD {noun}>" for noun in nouns),
        "HOW_BAD": tuple(f"<HOW_BAD {noun}>" for noun in nouns),
        "PART": tuple(f"[aspect {noun}] the {noun}" for noun in nouns),
        "PRAISE_FACT": tuple(f"[+0.8] [detail {fact.topic}] {fact.clause}" for fact in product.praise),
        "FAULT_FACT": tuple(f"[-0.8] [detail {fact.topic}] {fact.clause}" for fact in product.faults),
        "SITUATION": tuple(f"[situation {key}] {SITUATIONS[key][1]}" for key in SITUATIONS),
        "SUPERB_PRODUCT": tuple(_superlative(word, product) for word in ("excellent", "wonderful", "superb")),
        "DREADFUL_PRODUCT": tuple(_superlative(word, product) for word in ("awful", "terrible", "dreadful")),
    }
    forms = _NUMBER[product.plural] | {"product": product.name}
    return {name: tuple(rule.format_map(forms) for rule in rows) for name, rows in rules.items()}
