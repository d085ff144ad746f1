"""The published architectures: what is frozen, how fast each stage learns, where ImageNet weights come from."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.models.convnext import ConvNextTinyGeM, load_imagenet  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> ConvNextTinyGeM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvNextTinyGeM(dim=8).eval()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return torchvision.models.convnext_tiny(weights=None).state_dict()


def test_embeddings_have_unit_norm_and_forget_units(network):
    images = torch.rand(3, 1, 40, 32)
    with torch.no_grad():
        found = network(images)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(network(images * 4000 - 1000), found, atol=1e-4, rtol=0)
        assert torch.isfinite(network(torch.full((1, 1, 40, 32), 9.0))).all()


def test_stages_are_the_whole_backbone_and_the_first_holds_the_stem(network):
    stages = network.stages()
    assert [stage[-1][-1].block[0].out_channels for stage in stages] == [96, 192, 384, 768]
    found = {id(p) for stage in stages for p in stage.parameters()}
    assert found == {id(p) for p in network.feature_extractor.parameters()}
    assert id(network.stem.weight) in {id(p) for p in stages[0].parameters()}


def test_freezing_leaves_all_but_two_layers_of_features_to_learn():
    network = ConvNextTinyGeM(dim=8)
    network.freeze_stem()
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    expected = {
        name
        for name, _ in network.named_parameters()
        if name.startswith(("feature_extractor.0.", "feature_extractor.1."))
    }
    assert frozen == expected
    assert expected


def test_each_stage_learns_more_slowly_than_the_next_one(network):
    groups = network.parameter_groups(1e-3, 0.3)
    assert [group["lr"] for group in groups] == pytest.approx([1e-3, 3e-4, 9e-5, 2.7e-5, 8.1e-6])
    assert id(network.pools[0].p) in {id(p) for p in groups[0]["params"]}
    assert id(network.stem.weight) in {id(p) for p in groups[-1]["params"]}
    every = [id(p) for group in groups for p in group["params"]]
    assert len(every) == len(set(every)) == len(list(network.parameters()))


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_are_read_from_files(kind, weights, tmp_path):
    path = tmp_path / f"tiny.{kind}"
    if kind == "pth":
        torch.save(weights, path)
    else:
        from safetensors.torch import save_file

        save_file(weights, path)
    network = ConvNextTinyGeM(dim=8)
    load_imagenet(network, str(path))
    assert torch.equal(network.feature_extractor[7][2].block[0].weight, weights["features.7.2.block.0.weight"])


def test_files_that_are_no_weights_of_it_are_named(network, weights, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({name: tensor for name, tensor in weights.items() if name != "features.3.0.layer_scale"}, path)
    with pytest.raises(
        MetricError, match=r"backbone of ConvNextTinyGeM: 1 of its weights are missing, the first is 3\.0\.layer_scale"
    ):
        load_imagenet(network, str(path))
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match="holds no state dict"):
        load_imagenet(network, str(path))
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be read as weights"):
        load_imagenet(network, str(path))
    for suffix in ("safetensors", "pth"):
        with pytest.raises(UsageError, match="cannot be read as weights: "):
            load_imagenet(network, str(tmp_path / f"none.{suffix}"))


def test_without_a_network_the_error_says_what_else_to_do(network, monkeypatch):
    def fail(self, *_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(type(network.imagenet), "get_state_dict", fail)
    with pytest.raises(UsageError, match=r"no route to host.*--weights PATH.*--weights none"):
        load_imagenet(network, "imagenet")


def test_a_file_executes_nothing(network, tmp_path):
    import os

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'witness'}",)

    torch.save({"features.0.0.weight": Trap()}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="cannot be read as weights") as caught:
        load_imagenet(network, str(tmp_path / "x.pth"))
    assert "weights_only" not in str(caught.value)  # torch's advice is to let the file execute what it holds
    assert not (tmp_path / "witness").exists()
