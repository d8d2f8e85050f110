"""``lm-gym label`` as a function: its parameters are the options, its docstring is the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from lm_gym.app.options import MaybeInt, MaybePath, MaybeText, NoneGiven
from lm_gym.tools.console.terminal import plain_console

__all__ = ["label"]

Kind = Literal["auto", "choice", "ranks", "best_of", "thumb", "rating", "critique", "value"]
Form = Literal["own", "pairs", "conversations", "transcripts", "unpaired", "votes", "rankings", "triplets", "posterior"]
Names = Annotated[tuple[str, ...], NoneGiven]
Files = Annotated[tuple[Path, ...], NoneGiven]


def label(
    store: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="STORE")],
    questions: Files = (),
    kind: Kind = "auto",
    checks: Files = (),
    guideline: MaybePath = None,
    overlap: MaybeInt = None,
    annotators: Names = (),
    revoke: MaybeText = None,
    host: str = "127.0.0.1",
    port: int = 8712,
    allowed_host: Names = (),
    open: bool = False,
    terminal: bool = False,
    name: str = "owner",
    export: MaybePath = None,
    export_form: Form = "own",
    overwrite: bool = False,
) -> int | None:
    """Collect judgements from people, in the browser or in a terminal.

    Serves a labelling page, and prints a link for you and one for each annotator.

    Nothing is lost by stopping it; the same command goes on.

    Args:
        store: File of the label store, made if it is not there, or URL of a PostgreSQL database.
        questions: Files of rows with "prompt", "responses" and perhaps "kind"; or of judgements, which are asked anew.
        kind: Kind of the questions that name none; "auto" is a rating of one response, a choice of two, else a ranking.
        checks: Files of judgements whose answers are known: they check attention, and are no labels.
        guideline: Text file that tells annotators what to look for.
        overlap: Annotators that answer each question.
        annotators: Names to make a link for, or how many.
        revoke: Make every link of this person worth nothing, and do nothing else.
        host: Address to listen on; 0.0.0.0 is every network of this machine.
        port: Port to listen on; 0 takes one that is free.
        allowed_host: Names under which people reach this machine, such as labels.example.org.
        open: Open the page in the browser.
        terminal: Answer in this terminal instead of on a page.
        name: Your own name among the annotators.
        export: Write the labels to this .jsonl file, and do nothing else.
        export_form: Form of the exported rows: the project's own, which holds everything, that of another tool, or
            "posterior": what all labels on a question say together, its probability and the ends of its 95 % interval.
        overwrite: Replace the file that is there.
    """
    from lm_gym.reward_models.human import LabelStore, revoke_links

    from .session import Visit, collect, export_labels, prepare, told

    console = plain_console(highlight=False)
    with LabelStore.open(store) as opened:
        if revoke is not None:
            console.print(f"{revoke}: {told(revoke_links(opened, revoke), 'link')} revoked")
            return None
        prepare(opened, questions, kind=kind, checks=checks, guideline=guideline, overlap=overlap, console=console)
        if export is not None:
            export_labels(opened, export, form=export_form, overwrite=overwrite, console=console)
            return None
    visit = Visit(
        store=store,
        name=name,
        annotators=annotators,
        host=host,
        port=port,
        allowed_hosts=allowed_host,
        open_browser=open,
        terminal=terminal,
    )
    return collect(visit, console)
