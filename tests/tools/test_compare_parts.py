"""The comparison tool's own arithmetic: its masks, its names, and that it notices what it is for."""

import os
import pathlib
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # matrices this small are slower on two

import pytest  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import compare_with_transformers as tool  # noqa: E402


def small_config(**changes):
    values = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 24,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 64,
        "router_aux_loss_coef": 0.01,
    }
    config = Qwen3MoeConfig(**(values | changes))
    config._attn_implementation = config._experts_implementation = "eager"
    return config


def results(seed=1, packed=True, steps=0, **changes):
    config = small_config(**changes)
    model = tool.random_model(config, seed)
    batch = tool.random_batch(config, seed, rows=2, length=12, packed=packed)
    return tool.transformers_results(model, batch, steps, 1e-3, "split")[0]


def test_a_packed_document_gets_the_logits_that_it_gets_alone():
    config = small_config()
    model = tool.random_model(config, 3)
    batch = tool.random_batch(config, 3, rows=1, length=16, packed=True)
    whole = tool.transformers_results(model, batch, 0, 0.0, "split")[0]["logits"][0]
    starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), 16]
    assert len(starts) == 4
    for begin, end in zip(starts, starts[1:], strict=False):
        alone = model(batch["input_ids"][:, begin:end]).logits[0]
        torch.testing.assert_close(whole[begin:end], alone, rtol=1e-5, atol=1e-6)


def test_the_split_layout_has_the_names_that_transformers_writes_and_loads_again(tmp_path):
    model = tool.random_model(small_config(tie_word_embeddings=True), 0)
    for layout in ("split", "fused"):
        tool.save_model(model, tmp_path / layout, layout)
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = (tool.load_file(str(tmp_path / name / "model.safetensors")) for name in ("split", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for layout in ("split", "fused"):
        again = Qwen3MoeForCausalLM.from_pretrained(tmp_path / layout)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)), layout


def test_every_trained_tensor_has_a_gradient_to_compare():
    expected = results()
    named = {name for name in expected if name.startswith("grad.")}
    assert "grad.model.layers.1.mlp.experts.3.up_proj.weight" in named
    assert "grad.lm_head.weight" in named
    assert len(named) == 2 * (2 + 2 + 4 + 1 + 4 * 3) + 3


def test_equal_results_pass(capsys):
    expected = results(steps=2)
    assert tool.report(*tool.compare(expected, expected), margin=1.0)
    assert "experts gate and up" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["logits", "loss", "grad.model.norm.weight", "param.model.layers.0.mlp.gate.weight"])
def test_a_small_difference_anywhere_is_noticed(name, capsys):
    expected = results(steps=2)
    actual = dict(expected)
    actual[name] = expected[name] * (1 + 3e-4)
    assert not tool.report(*tool.compare(actual, expected), margin=1.0)
    assert "TOO LARGE" in capsys.readouterr().out


@pytest.fixture(scope="module")
def unlearned():
    """A router whose true gradient is zero (its one expert's weight is 1 whatever it says): in float32, and in float64."""
    config = small_config(num_experts_per_tok=1, norm_topk_prob=True, router_aux_loss_coef=0.0)
    batch = tool.random_batch(config, 1, rows=2, length=12, packed=True)
    settings = (batch, 2, 1e-3, "split")
    expected, _ = tool.transformers_results(tool.random_model(config, 1), *settings)
    return expected, tool.float64_results(tool.random_model(config, 1), *settings)


ROUTER = "model.layers.0.mlp.gate.weight"


def test_float64_is_float64_throughout(unlearned):
    expected, truth = unlearned
    assert all(tensor.dtype == torch.float64 for tensor in truth.values())
    assert truth[f"grad.{ROUTER}"].norm() < 1e-15 < 1e-12 < expected[f"grad.{ROUTER}"].norm()
    assert torch.tensor(1.0).dtype == torch.float32 and torch.ones(1).double().float().dtype == torch.float32


@pytest.mark.parametrize("kind", ["grad", "param"])
@pytest.mark.parametrize(("factor", "passes"), [(-1.9, True), (-2.1, False)])
def test_what_is_as_near_to_float64_as_transformers_passes_as_rounding(unlearned, capsys, kind, factor, passes):
    expected, truth = unlearned
    name = f"{kind}.{ROUTER}"
    actual = dict(expected)
    actual[name] = truth[name] + factor * (expected[name] - truth[name])
    assert tool.beyond_tolerance(actual, expected) == [name]
    rounding = tool.rounding_of(actual, expected, truth)
    assert set(rounding) == ({name} if passes else set())
    assert tool.report(*tool.compare(actual, expected, rounding), 1.0, rounding) == passes
    assert ("  rounding: " if passes else "TOO LARGE") in capsys.readouterr().out


@pytest.mark.parametrize("value", [1 + 3e-4, 0.0, float("nan")])
def test_a_wrong_gradient_or_parameter_is_no_rounding(unlearned, value):
    expected, truth = unlearned
    for name in ("grad.model.layers.1.self_attn.q_proj.weight", "param.lm_head.weight", "logits"):
        actual = {**expected, name: expected[name] * value}
        rounding = tool.rounding_of(actual, expected, truth)
        assert rounding == {}
        assert not tool.report(*tool.compare(actual, expected, rounding), 1.0, rounding)


def test_float64_that_routes_otherwise_excuses_nothing(unlearned):
    expected, truth = unlearned
    actual = {**expected, f"grad.{ROUTER}": -expected[f"grad.{ROUTER}"]}
    assert tool.rounding_of(actual, expected, truth)
    assert tool.rounding_of(actual, expected, {**truth, "logits": truth["logits"] * 1.001}) == {}


def test_missing_extra_misshapen_and_non_finite_tensors_are_noticed():
    expected = results()
    for change in (
        lambda tensors: tensors.pop("aux_loss"),
        lambda tensors: tensors.update(extra=torch.zeros(1)),
        lambda tensors: tensors.update(logits=tensors["logits"][:, :-1]),
        lambda tensors: tensors.update(loss=torch.tensor(float("nan"))),
    ):
        actual = dict(expected)
        change(actual)
        assert not tool.report(*tool.compare(actual, expected), margin=1.0)


def test_another_model_type_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="'llama'"):
        tool.load_config(tmp_path)


def test_a_value_that_the_library_refuses_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_moe", "router_aux_loss_coef": 0}')
    with pytest.raises(ValueError, match=r"config\.json: .*router_aux_loss_coef.* expected float, got int"):
        tool.load_config(tmp_path)
