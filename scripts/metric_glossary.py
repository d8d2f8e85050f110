"""Glossary of every metric, made from the code that computes it and the reading notes below, for the documentation.

A metric without a reading note, or a note without a metric, is an error: the site is not built.

Command:  python -m scripts.metric_glossary docs/generated
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from lm_gym import Evaluation
from lm_gym.agents import METRICS
from lm_gym.agents.metrics import HELD_OUT, tag
from lm_gym.reward_models import RewardEvaluation

__all__ = ["READING", "field_descriptions", "glossary", "write_glossary"]

READING = {
    "score": "rises; alone it proves nothing, since a reward model can be fooled: look at samples and `kl` beside it",
    "score_deviation": "near 0 means that every response earns the same and nothing can be learned from the score",
    "kl": "what the score was bought with; a steady climb without a controller ends in text that no one wants to read",
    "episode_return": "what the agent maximises; compare runs by it only at the same `kl_coef`",
    "entropy": "a fall to 0 in a few iterations is collapse: lower `learning_rate` or raise `kl_coef`",
    "response_length": "if it climbs with the score, the reward model may pay for length",
    "eos_share": "near 0, every response hits the cap: raise `max_new_tokens`, or set `missing_eos_penalty`",
    "invalid_episodes": "should be rare; the reward model abstained on them",
    "soft_bellman_error": "falls towards 0, which is the optimum; in units of the score",
    "regression_error": "falls towards 0, which is the optimum; what stays is the error of the prompts' values",
    "preference_margin": "grows until it is the difference of the scores; without end where the label is for sure",
    "preference_accuracy": "starts near 0 (no margin yet), rises towards 1",
    "kept_share": "one over the samples per prompt, or what a threshold lets pass",
    "uniform_groups": "near 1: the scores do not tell the responses to a prompt apart, and little is learned",
    "kl_coef": "constant, unless an `AdaptiveKL` moves it",
    "learning_rate": "falls to 0 over the run by default",
    "policy_loss": "starts near 0 and has no scale to read progress from",
    "kl_loss": "what `kl` is per token, for the agents that take the KL into the loss",
    "value_loss": "falls as the value head learns; its unit is the square of the reward's",
    "explained_variance": "1 is a perfect value head, 0 a constant one; below 0 for long, it does not keep up",
    "approx_kl": "how far the passes over a batch move the policy; `target_kl` bounds it",
    "clip_fraction": "near 0 the steps are small; when most tokens are clipped, they are too large",
    "value_clip_fraction": "near 1 for many iterations: returns are larger than `value_clip`; normalise the scores",
    "ratio_mean": "stays near 1",
    "ratio_max": "a large one is a token that became far likelier in one iteration",
    "ratio_error": "grows with the passes over a batch",
    "first_pass_ratio_error": "rounding only (below 1e-5 in float32): anything larger is a bug, not learning",
    "log_prob_drift": "rounding of the cached decode, up to .002 in float32; nothing is learned from sampled values",
    "grad_norm": "before clipping; spikes tell of a bad batch",
    "optimizer_steps": "`epochs` x `minibatches`, unless `target_kl` stopped the passes",
    "tokens_per_second_rollout": "speed of decoding",
    "tokens_per_second_score": "speed of reference and reward model together",
    "tokens_per_second_update": "speed of learning",
    "peak_memory_mb": "never falls: it is the peak since the process began",
}
"""Name -> how it is read, in a line."""


def field_descriptions(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, on one line.

    Raises:
        ValueError: a field has none.
    """
    [body] = [node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef)]
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if not isinstance(text, str):
            raise ValueError(f"{kind.__name__}.{node.target.id}: needs a docstring under the field, got none")
        found[node.target.id] = " ".join(text.split())
    return found


def glossary() -> dict[str, str]:
    """Markdown tables by name.

    Raises:
        ValueError: a metric lacks a formula or a reading note, or one of them lacks its metric.
    """
    if READING.keys() != METRICS.keys():
        apart = ", ".join(sorted(READING.keys() ^ METRICS.keys()))
        raise ValueError(f"metric glossary: READING must have the names of lm_gym.agents.METRICS, apart: {apart}")
    evaluation = field_descriptions(Evaluation)
    return {
        "training": _table(
            ("metric, and its chart", "formula", "how to read it"),
            [(f"{name}` `{tag(name)}", formula, READING[name]) for name, formula in METRICS.items()],
        ),
        "held_out": _table(("metric", "meaning"), [(name, evaluation[field]) for name, field in HELD_OUT.items()]),
        "evaluation": _table(("field", "meaning"), list(evaluation.items())),
        "reward_model": _table(("field", "meaning"), list(field_descriptions(RewardEvaluation).items())),
    }


def write_glossary(folder: Path) -> None:
    """Write each table to ``<name>.md`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in glossary().items():
        (folder / f"{name}.md").write_text(table, encoding="utf-8")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *((f"`{name}`", *map(_escaped, rest)) for name, *rest in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("``", "`")


if __name__ == "__main__":
    write_glossary(Path(sys.argv[1]))
