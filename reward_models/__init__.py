"""Reward models: everything that turns text, rankings or a hidden truth into a score.

Names are imported on first use, so that importing this package loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .caching.score_cache import CachedRewardModel
    from .composed.ensemble import EnsembleRewardModel
    from .composed.rules import (
        FluencyReward,
        LengthReward,
        LexiconReward,
        RegexReward,
        RepetitionPenalty,
        SimilarityReward,
    )
    from .composed.weight_fit import FittedWeights, fit_weights
    from .composed.weighted_sum import WeightedSum
    from .embedding.model import EmbeddingRewardModel, EmbeddingTrainingConfig
    from .embedding.sentence_features import SentenceFeatures
    from .human.pair_choice import choose_pairs, pair_utility
    from .judgements.annotator import Annotator, AnnotatorPool, Question, RecordedAnnotator
    from .judgements.forms.foreign import export_rows
    from .judgements.negatives import spoiled_pairs
    from .judgements.record import (
        BestOf,
        Choice,
        Critique,
        Judgement,
        Ranks,
        Rating,
        Response,
        Thumb,
        Value,
        Vote,
        Votes,
    )
    from .judgements.rows import JudgementFile, SkippedRow, judgement_from_row, load_judgements, save_judgements
    from .judgements.splits import Split, refuse_leaks, split_by_prompt
    from .judges.judge import JudgeRewardModel, RemoteJudge
    from .judges.oracle import OracleRewardModel
    from .judges.simulated_annotator import BradleyTerryAnnotator, agreement, expected_agreement
    from .likelihoods.comparison_losses import bradley_terry_nll, plackett_luce_nll, score_centering_penalty
    from .likelihoods.graded_losses import (
        davidson_nll,
        ordinal_nll,
        rao_kupper_nll,
        soft_bradley_terry_nll,
        thumb_nll,
        value_error,
    )
    from .likelihoods.joint_loss import JudgementLoss, LossConfig
    from .measuring.agreement import AnnotatorAgreement, OneAnnotator, annotator_agreement
    from .measuring.calibration import expected_calibration_error, fit_temperature
    from .measuring.card import RewardModelCard, reward_card
    from .measuring.error_detection import ErrorDetection, error_detection
    from .measuring.evaluation import (
        MarginAccuracy,
        NamedEvaluation,
        PromptAccuracy,
        ReliabilityBin,
        RewardEvaluation,
        evaluate_reward_model,
    )
    from .measuring.graded import GradedMeasures, graded_measures
    from .measuring.learning_curve import CurvePoint, learning_curve
    from .measuring.probes import ProbeResult, probe_reward_model
    from .scalar.config import RewardTrainingConfig
    from .scalar.cross_encoder import CrossEncoderRewardModel
    from .scalar.head_adapter import LoraSettings
    from .scalar.preference import PreferenceRewardModel

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
    "FittedWeights",
    "FluencyReward",
    "GradedMeasures",
    "JudgeRewardModel",
    "Judgement",
    "JudgementFile",
    "JudgementLoss",
    "LengthReward",
    "LexiconReward",
    "LoraSettings",
    "LossConfig",
    "MarginAccuracy",
    "NamedEvaluation",
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
    "fit_weights",
    "graded_measures",
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
    "spoiled_pairs",
    "thumb_nll",
    "value_error",
]

_HOMES = {
    "human.pair_choice": (
        "choose_pairs",
        "pair_utility",
    ),
    "measuring.agreement": (
        "AnnotatorAgreement",
        "OneAnnotator",
        "annotator_agreement",
    ),
    "measuring.calibration": (
        "expected_calibration_error",
        "fit_temperature",
    ),
    "measuring.card": (
        "RewardModelCard",
        "reward_card",
    ),
    "judgements.splits": (
        "Split",
        "refuse_leaks",
        "split_by_prompt",
    ),
    "scalar.cross_encoder": ("CrossEncoderRewardModel",),
    "measuring.learning_curve": (
        "CurvePoint",
        "learning_curve",
    ),
    "measuring.error_detection": (
        "ErrorDetection",
        "error_detection",
    ),
    "embedding.model": (
        "EmbeddingRewardModel",
        "EmbeddingTrainingConfig",
    ),
    "embedding.sentence_features": ("SentenceFeatures",),
    "composed.ensemble": ("EnsembleRewardModel",),
    "measuring.evaluation": (
        "MarginAccuracy",
        "NamedEvaluation",
        "PromptAccuracy",
        "ReliabilityBin",
        "RewardEvaluation",
        "evaluate_reward_model",
    ),
    "likelihoods.graded_losses": (
        "davidson_nll",
        "ordinal_nll",
        "rao_kupper_nll",
        "soft_bradley_terry_nll",
        "thumb_nll",
        "value_error",
    ),
    "likelihoods.joint_loss": (
        "JudgementLoss",
        "LossConfig",
    ),
    "judges.judge": (
        "JudgeRewardModel",
        "RemoteJudge",
    ),
    "judgements.forms.foreign": ("export_rows",),
    "judgements.rows": (
        "JudgementFile",
        "SkippedRow",
        "judgement_from_row",
        "load_judgements",
        "save_judgements",
    ),
    "judgements.record": (
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
    "scalar.head_adapter": ("LoraSettings",),
    "likelihoods.comparison_losses": (
        "bradley_terry_nll",
        "plackett_luce_nll",
        "score_centering_penalty",
    ),
    "judges.oracle": ("OracleRewardModel",),
    "scalar.preference": ("PreferenceRewardModel",),
    "measuring.probes": (
        "ProbeResult",
        "probe_reward_model",
    ),
    "judgements.annotator": (
        "Annotator",
        "AnnotatorPool",
        "Question",
        "RecordedAnnotator",
    ),
    "composed.rules": (
        "FluencyReward",
        "LengthReward",
        "LexiconReward",
        "RegexReward",
        "RepetitionPenalty",
        "SimilarityReward",
    ),
    "caching.score_cache": ("CachedRewardModel",),
    "judges.simulated_annotator": (
        "BradleyTerryAnnotator",
        "agreement",
        "expected_agreement",
    ),
    "scalar.config": ("RewardTrainingConfig",),
    "composed.weighted_sum": ("WeightedSum",),
    "composed.weight_fit": (
        "FittedWeights",
        "fit_weights",
    ),
    "judgements.negatives": ("spoiled_pairs",),
    "measuring.graded": (
        "GradedMeasures",
        "graded_measures",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
