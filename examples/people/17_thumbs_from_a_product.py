"""Thumbs of the users of a product, kept in a label store: one route of an application that you have already.

Command:  python examples/people/17_thumbs_from_a_product.py
Time:     some seconds; a client stands for the users
Expected: three thumbs stored, the one that was sent twice once, and rows for `lm-gym reward train`

Needs:    pip install 'lm-gym[human]'
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from lm_gym.reward_models import Judgement, Thumb, save_judgements
from lm_gym.reward_models.human import LabelStore, import_judgements, judgements_of


class Given(BaseModel):
    """A thumb under an answer of the product."""

    prompt: str = Field(max_length=20_000)
    answer: str = Field(max_length=20_000)
    up: bool
    user: str = Field(max_length=200)


def application(store: LabelStore) -> FastAPI:
    """The product's own application, with the one route that matters here."""
    app = FastAPI()

    @app.post("/thumbs")
    def thumb(given: Given) -> dict[str, int]:
        """Store a thumb, once however often it is sent; the user becomes a pseudonym."""
        said = Judgement.of(given.prompt, (given.answer,), Thumb(given.up), origin="product", annotator=given.user)
        return {"stored": import_judgements(store, [said], batch="product").stored}

    return app


def main() -> None:
    """Three users press a thumb; one connection is lost, and the thumb sent again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="the same; it takes seconds")
    parser.parse_args()
    pressed = [
        ("What is RLHF?", "Learning from people.", True),
        ("And PPO?", "No idea.", False),
        ("Why?", "So.", False),
    ]
    with tempfile.TemporaryDirectory() as folder, LabelStore.open(Path(folder) / "labels.db") as store:
        client = TestClient(application(store))
        for number, (prompt, answer, up) in enumerate([*pressed, pressed[0]]):
            body = {"prompt": prompt, "answer": answer, "up": up, "user": f"user-{number % 3}"}
            print(prompt, client.post("/thumbs", json=body).raise_for_status().json())
        with store.reading() as state:
            found = judgements_of(state)
        rows = save_judgements(Path(folder) / "thumbs.jsonl", found)
        print(f"{len(found)} thumbs; the first row: {rows.read_text().splitlines()[0]}")


if __name__ == "__main__":
    main()
