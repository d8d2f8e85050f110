"""Reward models: everything that turns text, rankings or a hidden truth into a score.

Names are imported on first use, so that importing this package loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .active import choose_pairs, pair_utility
    from .annotators import AnnotatorAgreement, OneAnnotator, annotator_agreement
    from .calibration import expected_calibration_error, fit_temperature
    from .card import RewardModelCard, reward_card
    from .comparisons import Split, refuse_leaks, split_by_prompt
    from .cross_encoder import CrossEncoderRewardModel
    from .curve import CurvePoint, learning_curve
    from .detection import ErrorDetection, error_detection
    from .embedding import EmbeddingRewardModel, EmbeddingTrainingConfig
    from .embedding_cache import SentenceFeatures
    from .ensemble import EnsembleRewardModel
    from .evaluation import MarginAccuracy, PromptAccuracy, ReliabilityBin, RewardEvaluation, evaluate_reward_model
    from .graded_losses import davidson_nll, ordinal_nll, rao_kupper_nll, soft_bradley_terry_nll, thumb_nll, value_error
    from .joint_loss import JudgementLoss, LossConfig
    from .judge import JudgeRewardModel, RemoteJudge
    from .judgement_forms import export_rows
    from .judgement_rows import JudgementFile, SkippedRow, judgement_from_row, load_judgements, save_judgements
    from .judgements import BestOf, Choice, Critique, Judgement, Ranks, Rating, Response, Thumb, Value, Vote, Votes
    from .lora import LoraSettings
    from .losses import bradley_terry_nll, plackett_luce_nll, score_centering_penalty
    from .oracle import OracleRewardModel
    from .preference import PreferenceRewardModel
    from .probes import ProbeResult, probe_reward_model
    from .questions import Annotator, AnnotatorPool, Question, RecordedAnnotator
    from .rules import FluencyReward, LengthReward, LexiconReward, RegexReward, RepetitionPenalty, SimilarityReward
    from .score_cache import CachedRewardModel
    from .simulated_annotator import BradleyTerryAnnotator, agreement, expected_agreement
    from .training_config import RewardTrainingConfig
    from .weighted_sum import WeightedSum

__all__ = [
    "Annotator",
    "AnnotatorAgreement",
    "AnnotatorPool",
    "BestOf",
    "BradleyTerryAnnotator",
    "CachedRewardModel",
    "Choice",
    "Critique",
    "CrossEncoderRewardModel",
    "CurvePoint",
    "EmbeddingRewardModel",
    "EmbeddingTrainingConfig",
    "EnsembleRewardModel",
    "ErrorDetection",
    "FluencyReward",
    "JudgeRewardModel",
    "Judgement",
    "JudgementFile",
    "JudgementLoss",
    "LengthReward",
    "LexiconReward",
    "LoraSettings",
    "LossConfig",
    "MarginAccuracy",
    "OneAnnotator",
    "OracleRewardModel",
    "PreferenceRewardModel",
    "ProbeResult",
    "PromptAccuracy",
    "Question",
    "Ranks",
    "Rating",
    "RecordedAnnotator",
    "RegexReward",
    "ReliabilityBin",
    "RemoteJudge",
    "RepetitionPenalty",
    "Response",
    "RewardEvaluation",
    "RewardModelCard",
    "RewardTrainingConfig",
    "SentenceFeatures",
    "SimilarityReward",
    "SkippedRow",
    "Split",
    "Thumb",
    "Value",
    "Vote",
    "Votes",
    "WeightedSum",
    "agreement",
    "annotator_agreement",
    "bradley_terry_nll",
    "choose_pairs",
    "davidson_nll",
    "error_detection",
    "evaluate_reward_model",
    "expected_agreement",
    "expected_calibration_error",
    "export_rows",
    "fit_temperature",
    "judgement_from_row",
    "learning_curve",
    "load_judgements",
    "ordinal_nll",
    "pair_utility",
    "plackett_luce_nll",
    "probe_reward_model",
    "rao_kupper_nll",
    "refuse_leaks",
    "reward_card",
    "save_judgements",
    "score_centering_penalty",
    "soft_bradley_terry_nll",
    "split_by_prompt",
    "thumb_nll",
    "value_error",
]

_HOMES = {
    "active": (
        "choose_pairs",
        "pair_utility",
    ),
    "annotators": (
        "AnnotatorAgreement",
        "OneAnnotator",
        "annotator_agreement",
    ),
    "calibration": (
        "expected_calibration_error",
        "fit_temperature",
    ),
    "card": (
        "RewardModelCard",
        "reward_card",
    ),
    "comparisons": (
        "Split",
        "refuse_leaks",
        "split_by_prompt",
    ),
    "cross_encoder": ("CrossEncoderRewardModel",),
    "curve": (
        "CurvePoint",
        "learning_curve",
    ),
    "detection": (
        "ErrorDetection",
        "error_detection",
    ),
    "embedding": (
        "EmbeddingRewardModel",
        "EmbeddingTrainingConfig",
    ),
    "embedding_cache": ("SentenceFeatures",),
    "ensemble": ("EnsembleRewardModel",),
    "evaluation": (
        "MarginAccuracy",
        "PromptAccuracy",
        "ReliabilityBin",
        "RewardEvaluation",
        "evaluate_reward_model",
    ),
    "graded_losses": (
        "davidson_nll",
        "ordinal_nll",
        "rao_kupper_nll",
        "soft_bradley_terry_nll",
        "thumb_nll",
        "value_error",
    ),
    "joint_loss": (
        "JudgementLoss",
        "LossConfig",
    ),
    "judge": (
        "JudgeRewardModel",
        "RemoteJudge",
    ),
    "judgement_forms": ("export_rows",),
    "judgement_rows": (
        "JudgementFile",
        "SkippedRow",
        "judgement_from_row",
        "load_judgements",
        "save_judgements",
    ),
    "judgements": (
        "BestOf",
        "Choice",
        "Critique",
        "Judgement",
        "Ranks",
        "Rating",
        "Response",
        "Thumb",
        "Value",
        "Vote",
        "Votes",
    ),
    "lora": ("LoraSettings",),
    "losses": (
        "bradley_terry_nll",
        "plackett_luce_nll",
        "score_centering_penalty",
    ),
    "oracle": ("OracleRewardModel",),
    "preference": ("PreferenceRewardModel",),
    "probes": (
        "ProbeResult",
        "probe_reward_model",
    ),
    "questions": (
        "Annotator",
        "AnnotatorPool",
        "Question",
        "RecordedAnnotator",
    ),
    "rules": (
        "FluencyReward",
        "LengthReward",
        "LexiconReward",
        "RegexReward",
        "RepetitionPenalty",
        "SimilarityReward",
    ),
    "score_cache": ("CachedRewardModel",),
    "simulated_annotator": (
        "BradleyTerryAnnotator",
        "agreement",
        "expected_agreement",
    ),
    "training_config": ("RewardTrainingConfig",),
    "weighted_sum": ("WeightedSum",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
