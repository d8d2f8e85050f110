"""Families of encoder-decoders: stepped with restarts, at once, and by a plain call; their heads, positions and texts.

Rows start, end and restart at different times, so that a wrong place of a token, a wrong mask or a prompt that another
row reads shows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gymnasium.utils.env_checker import check_env
from tiny_models import (
    ENCODER_DECODERS,
    EOS,
    PROMPTS,
    V,
    make_model,
    make_tokenizer,
    single_env,
    text_score,
    vector_env,
)

from lm_gym import LanguageModel, Reference, SamplingConfig
from lm_gym.errors import ConfigError, ModelLoadError
from lm_gym.models.decoder import EncoderDecoder, decoder_for
from lm_gym.models.language_model import load_language_model, load_weights
from lm_gym.models.response_text import ResponseText

LENGTH = 12
START = 3
"""A start token that is not the pad's, so that one taken for the other shows."""
SIDES = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
TWO_SIDED: dict[str, Any] = SIDES | {
    "d_model": 32,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": LENGTH,
    "init_std": 0.3,
}
RELATIVE: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "initializer_factor": 1.5,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "T5": ("T5", RELATIVE),
    "T5 1.1, gated, not scaled": ("T5", RELATIVE | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mT5": ("MT5", RELATIVE),
    "umT5": ("UMT5", RELATIVE),
    "BART": ("Bart", TWO_SIDED),
    "mBART": ("MBart", TWO_SIDED),
    "Pegasus": ("Pegasus", TWO_SIDED),
    "Blenderbot": ("Blenderbot", TWO_SIDED),
}


def family(name: str) -> Any:
    """A tiny random model; heads that are not the embedding, and a bias on the logits where there is one."""
    prefix, sizes = FAMILIES[name]
    tokens = {"vocab_size": V, "bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": EOS}
    config = getattr(transformers, f"{prefix}Config")(decoder_start_token_id=START, **tokens, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{prefix}ForConditionalGeneration")(config).eval().requires_grad_(False)
        if "final_logits_bias" in dict(model.named_buffers()):
            model.final_logits_bias.normal_()
        if "not scaled" in name:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(V, 32), requires_grad=False)
    return model


@torch.no_grad()
def plain_log_probs(model: LanguageModel, prompt: list[int], response: list[int]) -> np.ndarray:
    """Of every next token, before and after each response token, by one plain call. Shape: (T + 1, V)."""
    ids, written = torch.tensor([prompt]), torch.tensor([[START, *response]])
    logits = model.model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=written).logits[0]
    return torch.log_softmax(logits, dim=-1).numpy()


class Play:
    """Three rows through one decoder; a row that ends is compared with a plain call and restarts."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.rng = model, np.random.default_rng(0)
        self.decoder = decoder_for(model, 3, LENGTH)
        self.prompts: list[list[int]] = [[], [], []]
        self.responses: list[list[int]] = [[], [], []]
        self.found: list[list[np.ndarray]] = [[], [], []]
        self.start([0, 1, 2])

    def keep(self, row: int, state: torch.Tensor) -> None:
        self.found[row].append(torch.log_softmax(self.model.logits(state[None]), dim=-1)[0].numpy())

    def start(self, rows: list[int]) -> None:
        """From a prompt, and every other time from some tokens after it."""
        prompts = [self.rng.integers(0, V, self.rng.integers(1, LENGTH)) for _ in rows]
        begun = [self.rng.integers(0, V, self.rng.integers(0, 3)) for _ in rows]
        states = self.decoder.prefill(rows, prompts, begun)
        for row, prompt, response, state in zip(rows, prompts, begun, states, strict=True):
            self.prompts[row], self.responses[row], self.found[row] = prompt.tolist(), response.tolist(), []
            self.keep(row, state)

    def step(self) -> None:
        alive = np.array([len(row) < LENGTH - 1 for row in self.responses]) & (self.rng.random(3) > 0.1)
        if alive.any():
            tokens = self.rng.integers(0, V, 3)  # the pad token among them
            states = self.decoder.advance(tokens, alive)
            for row in np.flatnonzero(alive):
                self.responses[row].append(int(tokens[row]))
                self.keep(row, states[row])
        ended = np.flatnonzero(~alive).tolist()
        for row in ended:
            expected = plain_log_probs(self.model, self.prompts[row], self.responses[row])
            np.testing.assert_allclose(np.stack(self.found[row]), expected[-len(self.found[row]) :], atol=2e-4)
        if ended:
            self.start(ended)


@pytest.mark.parametrize("name", FAMILIES)
def test_stepping_and_teacher_forcing_equal_a_plain_call(name: str) -> None:
    model = LanguageModel(family(name), make_tokenizer())
    play = Play(model)
    cohorts = set()
    for _ in range(25):
        play.step()
        cohorts.add(play.decoder.num_cohorts)  # type: ignore[attr-defined]
    assert max(cohorts) >= 2
    prompts = [play.rng.integers(0, V, size) for size in (LENGTH, 5, 1)]
    prompts.append(prompts[1])
    responses = [play.rng.integers(0, V, size) for size in (4, LENGTH - 1, 1, 3)]
    before, after = decoder_for(model).teacher_forced(prompts, responses)
    expected = [plain_log_probs(model, p.tolist(), r.tolist()) for p, r in zip(prompts, responses, strict=True)]
    for states, wanted in ((before, [rows[:-1] for rows in expected]), (after, [rows[-1:] for rows in expected])):
        found = torch.log_softmax(model.logits(states), dim=-1).numpy()
        np.testing.assert_allclose(found, np.concatenate(wanted), atol=2e-4)


def test_rows_that_are_dropped_leave_the_others_as_they_were(model_of: Callable[[str], LanguageModel]) -> None:
    model = model_of("bart")
    decoder = decoder_for(model, 4, LENGTH)
    prompts = [np.array([row + 1, 5, EOS]) for row in range(4)]
    decoder.prefill([0, 1, 2, 3], prompts)
    decoder.advance(np.array([7, 8, 9, 10]), np.ones(4, dtype=bool))
    decoder.prefill([1], prompts[:1])
    decoder.keep(np.array([3, 1]))
    states = decoder.advance(np.array([11, 12]), np.ones(2, dtype=bool))
    for state, prompt, response in zip(states, (prompts[3], prompts[0]), ([10, 11], [12]), strict=True):
        expected = decoder_for(model).teacher_forced([prompt], [np.array(response)]).after[0]
        torch.testing.assert_close(state, expected.clone(), atol=1e-4, rtol=1e-4)


def test_prompts_that_are_alike_are_encoded_once(
    model_of: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("t5")
    seen: list[int] = []
    encoder = model.model.get_encoder()
    forward = encoder.forward

    def watched(**given: Any) -> Any:
        seen.append(len(given["input_ids"]))
        return forward(**given)

    monkeypatch.setattr(encoder, "forward", watched)
    prompts = [np.array([1, 2, EOS]), np.array([3, EOS])]
    decoder = decoder_for(model, 6)
    decoder.prefill(range(6), prompts * 3)
    decoder.advance(np.arange(6), np.ones(6, dtype=bool))
    assert seen == [2]
    assert isinstance(decoder, EncoderDecoder)
    decoder.prefill(range(6), prompts * 3)
    assert decoder.num_cohorts == 1  # rows that restart leave nothing behind


def test_prompt_and_response_have_positions_of_their_own(model_of: Callable[[str], LanguageModel]) -> None:
    model = LanguageModel(make_model("bart", max_position_embeddings=8), make_tokenizer())
    decoder = decoder_for(model)
    assert [decoder.longest_prompt(tokens) for tokens in (1, 7, 8)] == [8, 8, 0]  # the start token takes one
    assert decoder.fits(8, 7)
    assert not decoder.fits(9, 1)
    assert not decoder.fits(1, 8)
    assert decoder_for(model_of("t5")).longest_prompt(10_000) is None
    env = vector_env(1, Reference(model), ["a b c d e f"], text_score, max_new_tokens=7, kl_coef=0.1)
    env.reset(seed=0)
    assert env.observation_space["input_ids"].shape == (1, 13)  # type: ignore[index]
    with pytest.raises(ConfigError, match="must fit the model's 8 positions of the prompt and 7 of the response, got"):
        vector_env(1, Reference(model), ["a"], text_score, max_new_tokens=8, kl_coef=0.1)


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_gymnasiums_checker_passes(architecture: str, reference_of: Callable[[str], Reference]) -> None:
    check_env(
        single_env(reference_of(architecture), PROMPTS, text_score, max_new_tokens=4, kl_coef=0.1),
        skip_render_check=True,
    )


def test_a_response_is_decoded_alone(reference_of: Callable[[str], Reference]) -> None:
    text = ResponseText(make_tokenizer(), apart=True)
    assert text(np.array([1, 2, EOS]), np.array([3, 4, EOS])) == "c d"
    env = vector_env(2, reference_of("t5"), PROMPTS, text_score, max_new_tokens=4, kl_coef=0.1, stop_strings=("b",))
    env.reset(seed=0)
    infos = env.step(np.array([3, 2]))[4]
    assert infos["stop_reason"][1] == "stop_string"
    assert infos["response"][1] == ""


def test_what_a_generation_config_forces_is_not_forced() -> None:
    """Every token keeps its own probability: the sampler draws by the environment's rules alone."""
    from lm_gym.models.generate import LanguageModelSampler

    model = make_model("bart")
    free = LanguageModelSampler(LanguageModel(model, make_tokenizer()))
    sampling = SamplingConfig(max_new_tokens=4, seed=0)
    drawn = free.generate([np.array([1, 2, EOS])] * 8, sampling)
    model.generation_config.forced_bos_token_id, model.generation_config.forced_eos_token_id = 9, 9
    forced = LanguageModelSampler(LanguageModel(model, make_tokenizer()))
    np.testing.assert_array_equal(forced.generate([np.array([1, 2, EOS])] * 8, sampling).ids, drawn.ids)


@pytest.mark.parametrize("name", ["T5", "T5 1.1, gated, not scaled", "BART"])
def test_a_saved_folder_is_loaded_whole(name: str, tmp_path: Any) -> None:
    model = family(name)
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    loaded = load_language_model(tmp_path, device="cpu")
    assert type(loaded.model) is type(model)
    assert loaded.start_id == START
    ids = torch.tensor([[1, 2, 3]])
    expected = model(input_ids=ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(loaded.model(input_ids=ids, decoder_input_ids=ids).logits, expected)


def test_an_encoder_alone_is_told_apart(tmp_path: Any) -> None:
    transformers.T5EncoderModel(family("T5").config).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match=r"AutoModelForCausalLM .*T5Config"):
        load_weights(tmp_path)
