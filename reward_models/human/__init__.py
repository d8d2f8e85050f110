"""People: the label store, who is asked what next, the labelling page, and people as a live reward.

Not here: the record of one judgement and its files (``judgements``).

Names are imported on first use; all but the choice of pairs need the extra ``human``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collecting.annotator import StoreAnnotator, Waiting
    from .collecting.answering import judge, retract, skip, undo
    from .collecting.asking import ask_questions, close_items, record_fit, set_guideline, set_rules
    from .collecting.assignment import next_showing, people_wanted, release
    from .collecting.exchange import Imported, import_judgements, judgements_of
    from .collecting.statistics import AnnotatorRecord, Disputed, LabelStatistics, label_statistics
    from .collecting.sureness import ItemPosterior, label_posteriors, posterior_rows
    from .consensus.agreement import Agreement
    from .consensus.bias import PositionBias, SwapConsistency
    from .consensus.posterior import LabelPosterior, Labels, label_posterior, label_probabilities
    from .live.model import HumanRewardModel, WaitingForPeople, default_labels
    from .live.simulated import PageTransport, Shown, SimulatedPerson, StoreTransport, Transport
    from .live.tickets import HumanQuestions, Outcome, PaidReward, Ticket, audit
    from .live.values import value_of
    from .page.process import ServerProcess, serve_in_process
    from .page.serving import serve
    from .page.settings import PageSettings
    from .store.event_store import LabelStore, Transaction
    from .store.events import Event
    from .store.items import Item
    from .store.links import Link, find_link, links_of, make_link, revoke_links
    from .store.replay import Answer, AnsweredAlreadyError, Fit, Guideline, ItemState, LabelState, Payment, Showing
    from .store.rules import LabelRules

__all__ = [
    "Agreement",
    "AnnotatorRecord",
    "Answer",
    "AnsweredAlreadyError",
    "Disputed",
    "Event",
    "Fit",
    "Guideline",
    "HumanQuestions",
    "HumanRewardModel",
    "Imported",
    "Item",
    "ItemPosterior",
    "ItemState",
    "LabelPosterior",
    "LabelRules",
    "LabelState",
    "LabelStatistics",
    "LabelStore",
    "Labels",
    "Link",
    "Outcome",
    "PageSettings",
    "PageTransport",
    "PaidReward",
    "Payment",
    "PositionBias",
    "ServerProcess",
    "Showing",
    "Shown",
    "SimulatedPerson",
    "StoreAnnotator",
    "StoreTransport",
    "SwapConsistency",
    "Ticket",
    "Transaction",
    "Transport",
    "Waiting",
    "WaitingForPeople",
    "ask_questions",
    "audit",
    "close_items",
    "default_labels",
    "find_link",
    "import_judgements",
    "judge",
    "judgements_of",
    "label_posterior",
    "label_posteriors",
    "label_probabilities",
    "label_statistics",
    "links_of",
    "make_link",
    "next_showing",
    "people_wanted",
    "posterior_rows",
    "record_fit",
    "release",
    "retract",
    "revoke_links",
    "serve",
    "serve_in_process",
    "set_guideline",
    "set_rules",
    "skip",
    "undo",
    "value_of",
]

_HOMES = {
    "collecting.annotator": ("StoreAnnotator", "Waiting"),
    "collecting.answering": ("judge", "retract", "skip", "undo"),
    "collecting.asking": ("ask_questions", "close_items", "record_fit", "set_guideline", "set_rules"),
    "collecting.assignment": ("next_showing", "people_wanted", "release"),
    "collecting.exchange": ("Imported", "import_judgements", "judgements_of"),
    "collecting.statistics": ("AnnotatorRecord", "Disputed", "LabelStatistics", "label_statistics"),
    "collecting.sureness": ("ItemPosterior", "label_posteriors", "posterior_rows"),
    "consensus.agreement": ("Agreement",),
    "consensus.bias": ("PositionBias", "SwapConsistency"),
    "consensus.posterior": ("LabelPosterior", "Labels", "label_posterior", "label_probabilities"),
    "page.process": ("ServerProcess", "serve_in_process"),
    "page.serving": ("serve",),
    "page.settings": ("PageSettings",),
    "live.model": ("HumanRewardModel", "WaitingForPeople", "default_labels"),
    "live.simulated": ("PageTransport", "Shown", "SimulatedPerson", "StoreTransport", "Transport"),
    "live.tickets": ("HumanQuestions", "Outcome", "PaidReward", "Ticket", "audit"),
    "live.values": ("value_of",),
    "store.event_store": ("LabelStore", "Transaction"),
    "store.events": ("Event",),
    "store.items": ("Item",),
    "store.links": ("Link", "find_link", "links_of", "make_link", "revoke_links"),
    "store.replay": (
        "AnsweredAlreadyError",
        "Answer",
        "Fit",
        "Guideline",
        "ItemState",
        "LabelState",
        "Payment",
        "Showing",
    ),
    "store.rules": ("LabelRules",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
