"""A configuration makes the model that it describes, and nothing else happens because of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from masklake.errors import Refused
from masklake.inference import model_config, weights
from tests.released import layouts


def changed(tmp_path: Path, family: str = "mask2former-swin", **entries: Any) -> Path:
    """A released checkpoint whose configuration has these entries as well."""
    folder = layouts.write(family, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(Refused) as caught:
        weights.verify(folder, "team/model")
    message = str(caught.value)
    assert message.startswith("team/model")
    assert "\n" not in message
    return message


HOSTILE: dict[str, dict[str, Any]] = {
    "kernels of the hub": {"_attn_implementation": "kernels-community/flash-attn", "attn_implementation": "kernels-community/flash-attn"},
    "kernels inside": {
        "_attn_implementation_internal": "flash_attention_2",
        "_experts_implementation": "evil/experts",
        "use_kernels": True,
    },
    "a quantiser": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "a quantiser of its own": {"quantization_config": {"quant_method": "gptq", "bits": 4}, "compression_config": {"quant_method": "hqq"}},
    "code": {"auto_map": {"AutoModel": "evil--modeling_evil.Model", "AutoConfig": "configuration_evil.Config"}},
    "weights elsewhere": {"transformers_weights": "../../elsewhere.safetensors", "_name_or_path": "evil/model"},
    "fusion": {"fusion_config": {"evil": {"module": "antigravity"}}},
    "distribution": {"distributed_config": {"tp_plan": "auto"}, "base_model_tp_plan": {"*": "evil"}},
    "other arithmetic": {"dtype": "float16", "torch_dtype": "bfloat16", "return_dict": False, "use_bfloat16": True, "torchscript": True},
    "an adapter": {"peft_config": {"base_model_name_or_path": "evil/base"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(HOSTILE))
def test_nothing_that_a_configuration_asks_for_beside_its_model_is_done(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the whole nor by a part of it: no import, no file, no connection."""
    folder = changed(tmp_path, **HOSTILE[kind])
    config = json.loads((folder / "config.json").read_text())
    config["backbone_config"] |= HOSTILE[kind]
    (folder / "config.json").write_text(json.dumps(config))
    weights.verify(folder)  # what transformers imports for any model is imported now
    import socket

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    before = set(sys.modules)
    module = weights.load(folder)
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] in ("kernels", "bitsandbytes", "peft", "antigravity")}
    assert str(module.dtype) == "torch.float32"
    assert module.config._attn_implementation in ("sdpa", "eager")
    assert getattr(module.config, "quantization_config", None) is None
    assert not any("evil" in str(value) for value in module.config.to_dict().values())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"hidden_dim": 10**9}, "hidden_dim in config.json is 1000000000, larger than any model that could be run"),
        ({"decoder_layers": 10**6}, "decoder_layers in config.json is 1000000, larger than any model"),
        ({"feature_strides": [4] * 5000}, "feature_strides in config.json is [4, 4"),
        ({"num_queries": float("nan")}, "num_queries in config.json is nan"),
        ({"hidden_dim": 2**20}, "weights, its files hold"),
        ({"num_queries": 2**22}, "weights, its files hold"),
        ({"hidden_dim": "many"}, "Field 'hidden_dim' expected int, got str"),
        ({"hidden_dim": None}, "hidden_dim"),
        ({"hidden_dim": -1}, "team/model: transformers cannot"),
        ({"backbone_config": "swin"}, "backbone_config in config.json must be an object, not 'swin'"),
        ({"backbone_config": {"model_type": "unheard-of"}}, "model_type 'unheard-of' is unknown"),
        ({"architectures": "Mask2Former"}, "architectures in config.json must be a list of names"),
        ({"model_type": "llama"}, "model_type 'llama' is not one of the known families"),
        ({"model_type": None}, "its config.json names no model_type, so it was not written by transformers"),
        ({"model_type": ["llama"]}, "model_type ['llama'] is not one of the known families"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": 1}}}}}}}}}}, "objects in objects, more than 8 deep"),
        ({"backbone_config": None, "backbone": "microsoft/resnet-50"}, "names the backbone 'microsoft/resnet-50' instead of describing it"),
        (
            {"backbone_config": {"model_type": "timm_backbone", "backbone": "convnext_base"}},
            "backbone convnext_base comes from the package timm",
        ),
        ({"backbone_config": {"model_type": "dinat"}}, "its backbone is DiNAT, which needs the package natten below 0.20"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence_before_any_work(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    assert message in refusal(changed(tmp_path, **entries))


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '"x"', "[" * 100_000, '{"model_type": '])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = changed(tmp_path)
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("entries", "refused"),
    [
        ({}, ""),
        ({"use_timm_backbone": True}, ""),
        ({"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50", "out_indices": [1, 2, 3, 4]}}, ""),
        ({"backbone": "resnet50", "dilation": True}, "its backbone resnet50, dilated (DC5) comes from the package timm"),
        (
            {"backbone": "tf_efficientnet_b0"},
            "its backbone tf_efficientnet_b0 comes from the package timm, which is not installed: pip install timm",
        ),
    ],
)
def test_detr_runs_without_timm_where_its_backbone_is_a_plain_resnet(entries: dict[str, Any], refused: str) -> None:
    """facebook/detr-resnet-50-panoptic and detr-resnet-101-panoptic do; detr-resnet-50-dc5-panoptic does not."""
    config = layouts.layout("detr-resnet-50")["config"] | entries
    if refused:
        with pytest.raises(Refused) as caught:
            model_config.checked(config, "team/model")
        assert refused in str(caught.value)
    else:
        assert model_config.checked(config, "team/model")["backbone_config"]["depths"] == [3, 4, 6, 3]
