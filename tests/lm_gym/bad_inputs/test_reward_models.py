"""Bad arguments of reward models, annotators, and of what measures and combines them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import make_model, make_tokenizer

from lm_gym import LanguageModel, load_language_model, load_reward_model
from lm_gym.reward_models import (
    AnnotatorPool,
    BradleyTerryAnnotator,
    CachedRewardModel,
    CrossEncoderRewardModel,
    EmbeddingRewardModel,
    EnsembleRewardModel,
    FluencyReward,
    Judgement,
    JudgementFile,
    JudgeRewardModel,
    LengthReward,
    LexiconReward,
    OracleRewardModel,
    PreferenceRewardModel,
    RecordedAnnotator,
    RegexReward,
    RemoteJudge,
    SentenceFeatures,
    SimilarityReward,
    agreement,
    annotator_agreement,
    choose_pairs,
    error_detection,
    evaluate_reward_model,
    expected_agreement,
    expected_calibration_error,
    export_rows,
    fit_temperature,
    fit_weights,
    graded_measures,
    learning_curve,
    load_judgements,
    pair_utility,
    probe_reward_model,
    refuse_leaks,
    reward_card,
    save_judgements,
    split_by_prompt,
    spoiled_pairs,
)
from lm_gym.runs import RunIdentity, open_run
from lm_gym.scoring.protocol import checked_scores
from lm_gym.testing import tiny_tokenizer

Case = tuple[str, Callable[[Any], Any], tuple[str, ...]]
SAID = [Judgement.pair("a", "b", "c d"), Judgement.pair("b", "c", "a"), Judgement.pair("c", "bb", "c")]
FILE = JudgementFile(SAID, [], {}, 0)
LONG = "x" * 5000


def mine(prompts: Any, completions: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def embed(texts: Any) -> Any:
    return np.ones((len(texts), 3))


def none(*_: Any) -> None:
    return None


def model() -> LanguageModel:
    return LanguageModel(make_model(), make_tokenizer())


def classifier() -> Any:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    size = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32, "vocab_size": 16}
    return GPT2ForSequenceClassification(GPT2Config(**size, num_labels=1))


def scalar(**changes: Any) -> Callable[[Any], Any]:
    def call(world: Any) -> Any:
        good = {"model": classifier(), "tokenizer": tiny_tokenizer(), "device": "cpu"} | changes
        return PreferenceRewardModel(good.pop("model"), good.pop("tokenizer"), **good)

    return call


def from_base(base: Any = None, **changes: Any) -> Callable[[Any], Any]:
    return lambda world: PreferenceRewardModel.from_base(
        make_model() if base is None else base, **{"tokenizer": make_tokenizer(), "device": "cpu"} | changes
    )


SCALAR: list[Case] = [
    ("a model of a number", scalar(model=3), ("PreferenceRewardModel: model", "3")),
    ("a model of a name", scalar(model="gpt2"), ("PreferenceRewardModel: model", "'gpt2'")),
    ("a tokenizer of None", scalar(tokenizer=None), ("PreferenceRewardModel: tokenizer", "None")),
    ("no tokens", scalar(max_length=0), ("max_length", "0")),
    ("tokens below 0", scalar(max_length=-1), ("max_length", "-1")),
    ("tokens in text", scalar(max_length="8"), ("max_length", "'8'")),
    ("tokens of nan", scalar(max_length=math.nan), ("max_length", "nan")),
    ("tokens past the model", scalar(max_length=2**40), ("max_length", str(2**40))),
    ("a template of None", scalar(template=None), ("template", "None")),
    ("a template of bytes", scalar(template=b"{prompt}{response}"), ("template", "b'")),
    ("half a surrogate pair", scalar(template="\ud800{prompt}{response}"), ("template", "ud800")),
    ("a normaliser in a mapping", scalar(normalizer={"gain": 1.0}), ("normalizer", "{'gain': 1.0}")),
    ("a name of None", scalar(name=None), ("PreferenceRewardModel: name", "None")),
    ("a record of training in text", scalar(training="x"), ("training", "'x'")),
    ("links in a list", scalar(links=[1]), ("links", "[1]")),
    ("an adapter of a number", scalar(adapter=3), ("adapter", "3")),
    ("a device of a huge number", scalar(device=10**400), ("device", "1000")),
    ("a base of a number", from_base(3), ("reward model base", "3")),
    ("a base of a long name", from_base(LONG), ("reward model base", "255 bytes")),
    ("a base with a zero byte", from_base("a\0b"), ("reward model base", "a\\x00b")),
    ("a tokenizer of a number", from_base(tokenizer=3), ("tokenizer", "3")),
    ("a seed below 0", from_base(seed=-1), ("seed", "-1")),
    ("a seed in text", from_base(seed="0"), ("seed", "'0'")),
    ("weights of whole numbers", from_base(dtype="int8"), ("dtype", "'int8'")),
    ("weights of a module's name", from_base(dtype="nn"), ("dtype", "'nn'")),
    ("an adapter in a mapping", from_base(lora={"rank": 4}), ("adapter", "{'rank': 4}")),
    ("settings in a mapping", lambda w: scalar()(w).fit(SAID, {}), ("config", "{}")),
    ("judgements of a file", lambda w: scalar()(w).fit(FILE), ("list of judgements", "several lists")),
    ("checkpoints in a number", lambda w: scalar()(w).fit(SAID, checkpoint_dir=3), ("checkpoint_dir", "3")),
    ("a folder of None", lambda w: PreferenceRewardModel.load(None), ("reward model folder", "None")),
    ("a folder of a long name", lambda w: PreferenceRewardModel.load(LONG), ("reward model folder", "255 bytes")),
    ("a cross-encoder of None", lambda w: CrossEncoderRewardModel.load(None), ("reward model folder", "None")),
    ("a checkpoint of 3", lambda w: CrossEncoderRewardModel.from_checkpoint(3), ("cross-encoder", "3")),
    ("no features", lambda w: EmbeddingRewardModel(None, None), ("EmbeddingRewardModel: features", "None")),
    ("an encoder of a number", lambda w: SentenceFeatures.from_pretrained(3), ("sentence encoder", "3")),
    ("an embedding's folder", lambda w: EmbeddingRewardModel.load(3), ("reward model folder", "3")),
]


def judge(**changes: Any) -> Callable[[Any], Any]:
    good = {"answers": (" b", " c"), "pair_answers": (" b", " c")}
    return lambda world: JudgeRewardModel(**{"language_model": model()} | good | changes)


def remote(call: Any = mine, **changes: Any) -> Callable[[Any], Any]:
    return lambda world: RemoteJudge(call, **changes)


def bradley_terry(**changes: Any) -> Callable[[Any], Any]:
    return lambda world: BradleyTerryAnnotator(mine, **changes)


JUDGES: list[Case] = [
    ("a model of None", judge(language_model=None), ("language_model", "None")),
    ("a model of transformers", judge(language_model=make_model()), ("language_model", "GPT2LMHead")),
    ("a template of None", judge(template=None), ("judge judge: template", "None")),
    ("a template without a field", judge(template="{prompt}"), ("judge judge: template", "{response}")),
    ("a template of bytes", judge(pair_template=b"{prompt}{a}{b}"), ("pair_template", "b'")),
    ("one answer", judge(answers=(" b",)), ("answers", "(' b',)")),
    ("three answers", judge(answers=(" a", " b", " c")), ("answers", "' c'")),
    ("answers in text", judge(answers=" b"), ("answers", "' b'")),
    ("answers of numbers", judge(answers=(1, 2)), ("answers", "(1, 2)")),
    ("answers alike", judge(answers=(" b", " b")), ("answers", "different tokens")),
    ("a baseline of a number", judge(baseline=3), ("baseline", "3")),
    ("a baseline in text", judge(baseline="b"), ("baseline", "'b'")),
    ("no tokens", judge(max_batch_tokens=0), ("max_batch_tokens", "0")),
    ("tokens of nan", judge(max_batch_tokens=math.nan), ("max_batch_tokens", "nan")),
    ("a name of None", judge(name=None), ("name", "None")),
    ("nobody remote", remote(None), ("RemoteJudge: judge", "None")),
    ("no time", remote(timeout_s=0), ("timeout_s", "0")),
    ("time without end", remote(timeout_s=math.inf), ("timeout_s", "inf")),
    ("time in text", remote(timeout_s="60"), ("timeout_s", "'60'")),
    ("half a try", remote(tries=1.5), ("tries", "1.5")),
    ("a try that is a switch", remote(tries=True), ("tries", "True")),
    ("a wait below 0", remote(wait_s=-1), ("wait_s", "-1")),
    ("no workers", remote(workers=0), ("workers", "0")),
    ("workers without end", remote(workers=math.inf), ("workers", "inf")),
    ("a truth of another name", lambda w: OracleRewardModel(truth="films"), ("truth", "'films'")),
    ("a truth of a list", lambda w: OracleRewardModel(truth=["reviews"]), ("truth", "['reviews']")),
    ("a true score of a number", lambda w: OracleRewardModel(3), ("reward model", "3")),
    ("a temperature below 0", bradley_terry(temperature=-1), ("temperature", "-1")),
    ("a temperature of nan", bradley_terry(temperature=math.nan), ("temperature", "nan")),
    ("a temperature past floats", bradley_terry(temperature=10**400), ("temperature", "1000")),
    ("a temperature in text", bradley_terry(temperature="1"), ("temperature", "'1'")),
    ("a seed below 0", bradley_terry(seed=-1), ("seed", "-1")),
    ("a seed of None", bradley_terry(seed=None), ("seed", "None")),
    ("an annotator without a name", bradley_terry(name=""), ("name", "''")),
    ("an annotator's state", lambda w: BradleyTerryAnnotator(mine).load_state_dict({}), ("state", "rng", "{}")),
    ("a state of nonsense", lambda w: BradleyTerryAnnotator(mine).load_state_dict({"rng": 3}), ("rng", "3")),
    ("annotators of numbers", lambda w: AnnotatorPool([3]), ("AnnotatorPool: annotators", "[3]")),
    ("a pool's state", lambda w: AnnotatorPool([RecordedAnnotator([])]).load_state_dict(3), ("AnnotatorPool", "3")),
    ("records of a number", lambda w: RecordedAnnotator(3), ("RecordedAnnotator", "3")),
    ("records of a file", lambda w: RecordedAnnotator(FILE), ("RecordedAnnotator", "several lists")),
    ("agreement of numbers", lambda w: agreement([1], SAID), ("agreement", "1 at place 0")),
    ("no gaps", lambda w: expected_agreement([], 1.0), ("expected_agreement", "[]")),
    ("gaps of nan", lambda w: expected_agreement([math.nan], 1.0), ("score_gaps", "nan")),
    ("an expected temperature below 0", lambda w: expected_agreement([1.0], -1), ("temperature", "-1")),
]

COMPOSED: list[Case] = [
    ("weights in text", lambda w: EnsembleRewardModel([mine, mine], weights="ab"), ("weights", "'ab'")),
    ("one weight", lambda w: EnsembleRewardModel([mine, mine], weights=[1.0]), ("weights", "2 members")),
    ("weights of None", lambda w: EnsembleRewardModel([mine, mine], weights=[None, 1]), ("weights", "[None, 1]")),
    ("an ensemble's name", lambda w: EnsembleRewardModel([mine, mine], name=3), ("name", "3")),
    ("an ensemble's training", lambda w: EnsembleRewardModel([mine, mine], training=3), ("training", "3")),
    ("an ensemble's folder", lambda w: EnsembleRewardModel.load(None), ("reward model folder", "None")),
    ("weights of no members", lambda w: fit_weights(3, SAID), ("ensemble weights: members", "3")),
    ("weights by None", lambda w: fit_weights([mine, mine], None), ("ensemble weights", "None")),
    ("a fluency of None", lambda w: FluencyReward(None), ("FluencyReward: language_model", "None")),
    ("a fluency without tokens", lambda w: FluencyReward(model(), max_batch_tokens=0), ("max_batch_tokens", "0")),
    ("likeness to a number", lambda w: SimilarityReward(3, embed), ("SimilarityReward: target", "3")),
    ("likeness to a blank", lambda w: SimilarityReward("  ", embed), ("target", "'  '")),
    ("likeness by a number", lambda w: SimilarityReward("a", 3), ("SimilarityReward: embed", "3")),
    ("embeddings of None", lambda w: SimilarityReward("a", none), ("embed", "None")),
    ("embeddings of nan", lambda w: SimilarityReward("a", lambda t: [[math.nan]]), ("embed", "nan")),
    ("one embedding for none", lambda w: SimilarityReward("a", lambda t: [1.0, 2.0]), ("embed", "[1.0, 2.0]")),
    ("flags that clash", lambda w: RegexReward("a", flags=288), ("RegexReward", "flags 288", "incompatible")),
    ("a lexicon in one text", lambda w: LexiconReward("good bad"), ("LexiconReward", "'good bad'")),
    ("a cache's identity", lambda w: CachedRewardModel(mine, identity=3), ("identity", "3")),
    ("a cache's progress", lambda w: CachedRewardModel(mine, progress="no"), ("progress", "'no'")),
]


def scored(prompts: Any, responses: Any) -> Callable[[Any], Any]:
    return lambda world: LengthReward(target=1, tolerance=1).score(prompts, responses)


def chosen(**changes: Any) -> Callable[[Any], Any]:
    good = {"candidates": [("p", "a", "b")], "count": 1, "rule": "disagreement"}
    return lambda world: choose_pairs(**good | {"ensemble": EnsembleRewardModel([mine, mine])} | changes)


def card(said: Any = SAID, reward_model: Any = mine, **changes: Any) -> Callable[[Any], Any]:
    return lambda world: reward_card(reward_model, said, **changes)


def evaluated(said: Any = SAID, reward_model: Any = mine, **changes: Any) -> Callable[[Any], Any]:
    return lambda world: evaluate_reward_model(reward_model, said, **changes)


MEASURES: list[Case] = [
    ("prompts of None", scored(None, ["a"]), ("length", "prompts", "None")),
    ("prompts in one text", scored("a", ["a"]), ("length", "prompts", "'a'")),
    ("responses of numbers", scored(["a"], [3]), ("length", "responses", "3 in row 0")),
    ("responses of a number", scored(["a"], 3), ("length", "responses", "3")),
    ("half a surrogate pair", scored(["a"], ["\ud800"]), ("length", "responses", "ud800")),
    ("an oracle's prompts", lambda w: checked_scores(OracleRewardModel(), 3, ["a"]), ("oracle", "prompts", "3")),
    ("a card of None", card(None), ("reward_card", "None")),
    ("a card of a file", card(FILE), ("reward_card", "several lists")),
    ("a card of numbers", card([3]), ("reward_card", "3 at place 0")),
    ("a card of no model", card(reward_model=3), ("reward model", "3")),
    ("groups of a number", card(group_of=3), ("group_of", "3")),
    ("groups of None", card(group_of=none), ("group_of", "None")),
    ("groups trained on in text", card(trained_on="a"), ("trained_on", "'a'")),
    ("other results of numbers", card(also=[3]), ("also", "[3]")),
    ("a curve of numbers", card(learning_curve=[0.5]), ("learning_curve", "[0.5]")),
    ("about a number", card(about=3), ("about", "3")),
    ("progress in words", card(progress="no"), ("progress", "'no'")),
    ("an evaluation of None", evaluated(None), ("reward model evaluation", "None")),
    ("an evaluation of no model", evaluated(reward_model=None), ("reward model", "None")),
    ("an evaluation's groups", evaluated(group_of="a"), ("group_of", "'a'")),
    ("tokens of a number", evaluated(count_tokens=3), ("count_tokens", "3")),
    ("tokens of nothing", evaluated(count_tokens=none), ("tokens", "None")),
    ("tokens of one text", evaluated(count_tokens=lambda texts: [1]), ("count_tokens", "1")),
    ("tokens in words", evaluated(count_tokens=lambda texts: ["a"] * len(texts)), ("tokens", "'a'")),
    ("candidates of None", chosen(candidates=None), ("candidates", "None")),
    ("a candidate of two", chosen(candidates=[("p", "a")]), ("candidate", "('p', 'a')")),
    ("a candidate of numbers", chosen(candidates=[(1, 2, 3)]), ("candidate", "(1, 2, 3)")),
    ("a candidate in text", chosen(candidates=["abc"]), ("candidate", "'abc'")),
    ("half a pick", chosen(count=0.5), ("count", "0.5")),
    ("picks below 0", chosen(count=-1), ("count", "-1")),
    ("two picks of one", chosen(count=2), ("count", "2")),
    ("another rule", chosen(rule="best"), ("rule", "'best'")),
    ("no ensemble", chosen(ensemble=None), ("ensemble", "none")),
    ("an ensemble of one", chosen(ensemble=LengthReward(target=1, tolerance=1)), ("ensemble", "LengthReward")),
    ("a pick's seed in text", chosen(seed="0"), ("seed", "'0'")),
    ("margins of None", lambda w: pair_utility(None, "information"), ("margins", "None")),
    ("margins of nan", lambda w: pair_utility([[math.nan]], "information"), ("margins", "nan")),
    ("margins of one model", lambda w: pair_utility([1.0], "information"), ("margins", "[1.0]")),
    ("a utility of no rule", lambda w: pair_utility([[1.0]], ["information"]), ("rule", "['information']")),
    ("a temperature of nothing", lambda w: fit_temperature(None), ("fit_temperature: margins", "None")),
    ("a calibration of nan", lambda w: expected_calibration_error([math.nan]), ("margins", "nan")),
    ("a calibration of none", lambda w: expected_calibration_error([]), ("expected_calibration_error", "none")),
    ("grades of None", lambda w: graded_measures(mine, None), ("graded_measures", "None")),
    ("grades by a number", lambda w: graded_measures(3, []), ("reward model", "3")),
    ("errors of no model", lambda w: error_detection(3, SAID), ("reward model", "3")),
    ("errors of no members", lambda w: error_detection(mine, SAID, members=3), ("members", "3")),
    ("agreement of None", lambda w: annotator_agreement(None), ("annotator_agreement", "None")),
    ("agreement by margins", lambda w: annotator_agreement(SAID, ["a"] * 3), ("margins", "'a'")),
    ("probes of no prompts", lambda w: probe_reward_model(mine, 3, [["a"]]), ("prompts", "3")),
    ("probes of one text", lambda w: probe_reward_model(mine, "a", ["b"]), ("prompts", "'a'")),
    ("probes of answers in text", lambda w: probe_reward_model(mine, ["a"], ["b"]), ("answers", "['b']")),
    ("a curve by a number", lambda w: list(learning_curve(3, SAID, SAID)), ("learning_curve: fit", "3")),
    ("a curve of none", lambda w: list(learning_curve(mine, [], SAID)), ("learning_curve", "none")),
    ("shares of 0", lambda w: list(learning_curve(mine, SAID, SAID, shares=[0])), ("shares", "[0]")),
]

JUDGEMENTS: list[Case] = [
    ("a split of None", lambda w: split_by_prompt(None, held_out=0.5), ("split", "None")),
    ("a split's share in a mapping", lambda w: split_by_prompt(SAID, held_out={}), ("held_out", "{}")),
    ("a share of nan", lambda w: split_by_prompt(SAID, held_out=math.nan), ("held_out", "nan")),
    ("a share that is a switch", lambda w: split_by_prompt(SAID, held_out=True), ("held_out", "True")),
    ("a split's seed", lambda w: split_by_prompt(SAID, held_out=0.5, seed="0"), ("seed", "'0'")),
    ("a split's groups", lambda w: split_by_prompt(SAID, held_out=0.5, group_of=none), ("group_of", "None")),
    ("leaks of numbers", lambda w: refuse_leaks([3], SAID), ("split", "3 at place 0")),
    ("spoiled of None", lambda w: spoiled_pairs(None, share=0.5), ("spoiled_pairs", "None")),
    ("saved numbers", lambda w: save_judgements(w.tmp / "j.jsonl", [3]), ("save_judgements", "3 at place 0")),
    ("saved under a long name", lambda w: save_judgements(w.tmp / LONG, SAID), ("output file", "255 bytes")),
    ("a form of a list", lambda w: export_rows(SAID, ["trl"]), ("form", "['trl']")),
    ("exported numbers", lambda w: export_rows([3], "preference"), ("export",)),
]

PLACES: list[Case] = [
    ("a reward model's long name", lambda w: load_reward_model(LONG), ("reward model", "255 bytes", "xxx...")),
    ("a reward model's zero byte", lambda w: load_reward_model("a\0b"), ("reward model", "a\\x00b")),
    ("a reward model's long path", lambda w: load_reward_model("x/" * 3000), ("reward model", "255 bytes")),
    ("a reward model's long import", lambda w: load_reward_model(f"{LONG}:f"), ("reward model", "255 bytes")),
    ("a model's long name", lambda w: load_language_model(LONG), ("model", "255 bytes")),
    ("a model's zero byte", lambda w: load_language_model(Path("a\0b")), ("model", "a\\x00b")),
    ("judgements of a long name", lambda w: load_judgements(f"{LONG}.jsonl"), ("judgements", "255 bytes")),
    ("judgements with a zero byte", lambda w: load_judgements("a\0.jsonl"), ("judgements", "a\\x00.jsonl")),
    ("a run of a long name", lambda w: open_run(w.tmp / LONG, RunIdentity(kind="x")), ("run folder", "255 bytes")),
    ("a run with a zero byte", lambda w: open_run("a\0b", RunIdentity(kind="x")), ("run folder", "a\\x00b")),
    ("a policy with a zero byte", lambda w: w.policy.save_pretrained(w.tmp / "a\0b"), ("folder", "a\\x00b")),
    ("an oracle with a zero byte", lambda w: OracleRewardModel().save(w.tmp / "a\0b"), ("folder", "a\\x00b")),
]

ALL = [
    pytest.param(call, words, id=f"{group}: {name}")
    for group, cases in (
        ("scalar", SCALAR),
        ("judges", JUDGES),
        ("composed", COMPOSED),
        ("measures", MEASURES),
        ("judgements", JUDGEMENTS),
        ("places", PLACES),
    )
    for name, call, words in cases
]


@pytest.mark.parametrize(("call", "words"), ALL)
def test_a_bad_argument_is_named(world: Any, refuses: Any, call: Any, words: tuple[str, ...]) -> None:
    assert len(refuses(world, call, words)) < 1500


def test_a_time_limit_of_centuries_is_kept(world: Any) -> None:
    found = RemoteJudge(lambda prompt, response: 1.0, timeout_s=1e300, wait_s=0).score(["p"], ["r"])
    assert found.value.tolist() == [1.0]
