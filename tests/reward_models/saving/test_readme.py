from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_gym.reward_models import LoraSettings, PreferenceRewardModel, RewardTrainingConfig, evaluate_reward_model


def test_the_page_tells_what_is_known(save_base: Any, judged_texts: Any, tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "lm")
    model = PreferenceRewardModel.from_base(base, lora=LoraSettings(rank=2), name="critic", max_length=7, device="cpu")
    bare = (model.save(tmp_path / "rm") / "README.md").read_text(encoding="utf-8")
    assert "# Reward model critic" in bare
    assert "Nothing was measured" in bare
    assert "No normaliser was fitted" in bare
    rankings = judged_texts(12, 3, 0)
    found = model.fit([*rankings, *rankings[:2]], RewardTrainingConfig())
    model.training["evaluation"] = evaluate_reward_model(model, judged_texts(9, 3, 1)).to_json()
    normalizer = model.fit_normalizer(["one", "one"], ["good", "bad"], fitted_on="two texts")
    told = (model.save(tmp_path / "rm") / "README.md").read_text(encoding="utf-8")
    assert f"An adapter on `{base}`" in told
    assert "14 judgements: 14 rankings." in told
    assert f"`{normalizer.gain:.4g} * score + {normalizer.bias:.4g}`, fitted on two texts" in told
    assert f"| accuracy on pairs that it was not fitted to | {found['evaluation']['accuracy']:.3f} |" in told
    assert found["texts_cut"] == found["texts"]  # 4 words of the prompt and 5 of the response are more than 7
    assert f"{found['texts']} of {found['texts']} texts were too long" in told
