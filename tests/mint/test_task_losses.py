"""M trained with a margin: the numbers of the papers, the limits, and a model that learns."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from auditkit.mint import steps
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.errors import ClassifierError, MarginLabelsError
from auditkit.mint.models import build_audited_model
from auditkit.mint.task_losses import (
    LEAST_SINE,
    NORM_CONCENTRATION,
    AdaptiveMargin,
    CosineClassifier,
    margin_labels,
    replace_classifier,
    shifted_cosine,
)
from schemas import MintConfig, Normalisation, OptimiserConfig, TrainingConfig
from schemas.training import TaskLossConfig
from tests.mint.builders import model_config

MARGIN_LOSSES = ("arcface", "cosface", "adaface")


def classifier(
    name: str, weight: list[list[float]], scale: float = 10.0, margin: float | None = None
) -> CosineClassifier:
    """A layer with known class vectors, in double precision."""
    config = TaskLossConfig(name=name, scale=scale, margin=margin)
    layer = CosineClassifier(len(weight[0]), len(weight), config).double()
    layer.weight.data = torch.tensor(weight, dtype=torch.float64)
    return layer


def margin_logits(layer: CosineClassifier, features: Tensor, labels: list[int]) -> Tensor:
    layer.train()
    with margin_labels(layer, torch.tensor(labels)):
        return layer(features)


def at_degrees(*degrees: float, norm: float = 1.0) -> Tensor:
    angles = np.radians(degrees)
    points = norm * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    return torch.from_numpy(points)


# Two classes, at 0 and at 90 degrees; vectors of other lengths than 1 must not matter.
AXES = [[3.0, 0.0], [0.0, 0.5]]


class TestNumbersComputedByHand:
    def test_evaluation_gives_scaled_cosines_whatever_the_lengths(self):
        for name in MARGIN_LOSSES:
            logits = classifier(name, AXES).eval()(at_degrees(60.0, norm=7.0))
            assert logits[0].tolist() == pytest.approx([5.0, 10 * math.sqrt(0.75)])

    def test_arcface_adds_its_margin_to_the_angle(self):
        layer = classifier("arcface", AXES, margin=math.radians(30))
        logits = margin_logits(layer, at_degrees(30.0, 30.0), [0, 1])
        # class 0: 30 + 30 = 60 degrees; class 1 lies 60 degrees away, 60 + 30 = 90.
        expected = [[10 * 0.5, 10 * 0.5], [10 * math.sqrt(0.75), 0.0]]
        assert logits.tolist() == [pytest.approx(row) for row in expected]

    def test_cosface_takes_its_margin_off_the_cosine(self):
        layer = classifier("cosface", AXES, margin=0.2)
        logits = margin_logits(layer, at_degrees(60.0), [0])
        assert logits[0].tolist() == pytest.approx([10 * (0.5 - 0.2), 10 * math.sqrt(0.75)])

    def test_cross_entropy_of_one_row(self):
        layer = classifier("cosface", AXES, scale=4.0, margin=0.25)
        logits = margin_logits(layer, at_degrees(60.0), [0])
        loss = functional.cross_entropy(logits, torch.tensor([0]))
        own, other = 4 * 0.25, 4 * math.sqrt(0.75)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(other - own)))

    def test_adaface_by_the_length_of_the_feature(self):
        # Norms 1, 2, 3: mean 2, deviation sqrt(2/3); q = (norm - 2) / deviation * 0.333.
        layer = classifier("adaface", AXES, margin=0.4)
        features = torch.cat([at_degrees(60.0, norm=n) for n in (1.0, 2.0, 3.0)])
        logits = margin_logits(layer, features, [0, 0, 0])
        q = NORM_CONCENTRATION / math.sqrt(2 / 3)
        sixty = math.radians(60)
        expected = [
            10 * (math.cos(sixty + 0.4 * quality) - 0.4 * (1 - quality)) for quality in (q, 0.0, -q)
        ]
        assert logits[:, 0].tolist() == pytest.approx(expected)

    def test_adaface_at_its_ends_is_arcface_and_cosface(self):
        # The paper's own remark on q = -1 and q = 0 (section 3.3).
        cosine = torch.tensor([0.3, 0.3], dtype=torch.float64)
        margin = AdaptiveMargin(0.4).double()
        margin.mean.fill_(10.0)
        margin.deviation.fill_(1.0)
        margin.updates.fill_(10**6)
        with torch.no_grad():
            low, middle = margin(cosine, torch.tensor([0.0, 10.0], dtype=torch.float64))
        # The update moves the statistics by one per cent of the batch's.
        assert low.item() == pytest.approx(math.cos(math.acos(0.3) + 0.4))
        assert middle.item() == pytest.approx(0.3 - 0.4, abs=0.02)


class TestLimits:
    @pytest.mark.parametrize("name", ["arcface", "cosface", "adaface"])
    def test_a_margin_of_zero_is_softmax_on_scaled_cosines(self, name):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(50, 6, generator=generator, dtype=torch.float64)
        weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        layer = classifier(name, weight.tolist(), scale=64.0, margin=0.0)
        labels = torch.randint(5, (50,), generator=generator)
        trained = margin_logits(layer, features, labels.tolist())
        torch.testing.assert_close(trained, layer.eval()(features))
        cosines = functional.cosine_similarity(features[:, None], weight[None], dim=2)
        torch.testing.assert_close(trained, 64.0 * cosines)

    @pytest.mark.parametrize("name", MARGIN_LOSSES)
    def test_a_margin_makes_every_row_harder_and_touches_no_other_class(self, name):
        generator = torch.Generator().manual_seed(1)
        features = torch.randn(200, 6, generator=generator, dtype=torch.float64)
        weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        layer = classifier(name, weight.tolist())
        labels = torch.randint(5, (200,), generator=generator)
        own = functional.one_hot(labels, 5).bool()
        trained = margin_logits(layer, features, labels.tolist())
        plain = layer.eval()(features)
        assert (trained[own] < plain[own]).all()
        torch.testing.assert_close(trained[~own], plain[~own])

    @pytest.mark.parametrize("angle", [-0.5, -0.01, 0.0, 0.01, 0.5, 1.0])
    def test_the_shifted_cosine_is_monotone_continuous_and_right(self, angle):
        theta = torch.linspace(math.pi, 0, 20_001, dtype=torch.float64)
        cosine = theta.cos().requires_grad_()
        shifted = shifted_cosine(cosine, torch.full_like(theta, angle))
        steps = shifted.detach().diff()
        # Close to 0 degrees the bounded sine may give back a thousandth part of a step.
        assert steps.min() > -1e-4
        assert steps.max() < 1e-3
        inside = (theta + angle > 0) & (theta + angle < math.pi) & (theta.sin() > LEAST_SINE)
        torch.testing.assert_close(shifted[inside], (theta + angle).cos()[inside])
        (gradient,) = torch.autograd.grad(shifted.sum(), cosine)
        assert torch.isfinite(gradient).all()
        assert gradient.min() >= 0
        assert gradient.max() <= 1 + abs(math.sin(angle)) / LEAST_SINE

    def test_at_the_very_ends_nothing_is_infinite(self):
        for name in MARGIN_LOSSES:
            layer = classifier(name, AXES, scale=64.0)
            features = torch.cat((at_degrees(0.0, 180.0, 90.0), torch.zeros(1, 2))).double()
            features.requires_grad_()
            logits = margin_logits(layer, features, [0, 0, 0, 0])
            functional.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)).backward()
            assert torch.isfinite(logits).all()
            assert torch.isfinite(features.grad).all()
            assert torch.isfinite(layer.weight.grad).all()


class TestGradients:
    @pytest.mark.parametrize("name", MARGIN_LOSSES)
    def test_they_agree_with_finite_differences(self, name):
        generator = torch.Generator().manual_seed(2)
        features = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        labels = torch.tensor([0, 1, 2, 0, 1, 2])
        weight = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        config = TaskLossConfig(name=name, scale=8.0)
        layer = CosineClassifier(4, 3, config).double().train()
        if name == "adaface":
            # No gradient passes through the quality, so it must stand still for this check.
            layer.margin._quality = lambda norm: torch.full_like(norm, 0.25)

        def loss(features: Tensor, weight: Tensor) -> Tensor:
            with margin_labels(layer, labels):
                logits = torch.func.functional_call(layer, {"weight": weight}, (features,))
            return functional.cross_entropy(logits, labels)

        assert torch.autograd.gradcheck(loss, (features, weight))

    def test_no_gradient_passes_through_the_quality_of_a_feature(self):
        # Along the feature's own direction only its norm changes, so nothing may flow.
        layer = classifier("adaface", AXES)
        features = torch.cat([at_degrees(60.0, norm=n) for n in (1.0, 2.0, 4.0)])
        features.requires_grad_()
        margin_logits(layer, features, [0, 0, 0]).sum().backward()
        along = (features.grad * features).sum(dim=1)
        torch.testing.assert_close(along, torch.zeros(3).double(), atol=1e-12, rtol=0)


class TestRunningStatistics:
    def test_the_first_batch_sets_them_and_later_ones_move_them(self):
        margin = AdaptiveMargin(0.4)
        margin(torch.zeros(2), torch.tensor([1.0, 3.0]))
        assert margin.mean.item() == pytest.approx(2.0)
        assert margin.deviation.item() == pytest.approx(1.0)
        margin(torch.zeros(2), torch.tensor([10.0, 14.0]))
        assert margin.mean.item() == pytest.approx(0.99 * 2.0 + 0.01 * 12.0)
        assert margin.deviation.item() == pytest.approx(0.99 * 1.0 + 0.01 * 2.0)

    def test_they_belong_to_the_weights_and_stay_still_in_evaluation(self):
        model = build_audited_model(model_config(), seed=0)
        replace_classifier(model, TaskLossConfig(name="adaface"))
        images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
        model.train()
        with margin_labels(model, labels):
            model(images)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        assert state["fc.margin.mean"] > 0
        model.eval()
        model(images)
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name
        other = build_audited_model(model_config(), seed=5)
        replace_classifier(other, TaskLossConfig(name="adaface"))
        other.load_state_dict(state)
        assert torch.equal(other.eval()(images), model(images))

    def test_a_batch_of_one_or_of_equal_norms_is_no_division_by_zero(self):
        margin = AdaptiveMargin(0.4)
        assert torch.isfinite(margin(torch.tensor([0.5]), torch.tensor([2.0]))).all()
        assert torch.isfinite(margin(torch.full((3,), 0.5), torch.full((3,), 2.0))).all()


class TestModels:
    @pytest.mark.parametrize(
        ("architecture", "side"),
        [("resnet18", 32), ("mobilenetv2_035", 32), ("vit_tiny_patch16_224", 224)],
    )
    def test_the_last_layer_is_replaced_wherever_it_is(self, architecture, side):
        model = build_audited_model(model_config(architecture, side), seed=0)
        replace_classifier(model, TaskLossConfig(name="cosface", scale=16.0))
        assert isinstance(model.get_classifier(), CosineClassifier)
        logits = model.eval()(torch.randn(2, 3, side, side))
        assert logits.shape == (2, 4)
        assert logits.abs().max() <= 16.0

    def test_a_configuration_names_the_loss_and_the_seed_gives_its_weights(self):
        config = model_config(task_loss=TaskLossConfig(name="adaface", scale=20.0))
        first, again = (build_audited_model(config, seed=3).get_classifier() for _ in range(2))
        assert isinstance(first, CosineClassifier)
        assert isinstance(first.margin, AdaptiveMargin)
        assert first.scale == 20.0
        assert torch.equal(first.weight, again.weight)
        assert not torch.equal(
            first.weight, build_audited_model(config, seed=4).get_classifier().weight
        )

    def test_softmax_keeps_the_model_as_it_is(self):
        model = build_audited_model(model_config(), seed=0)
        before = model.get_classifier()
        replace_classifier(model, TaskLossConfig())
        assert model.get_classifier() is before
        with margin_labels(model, torch.zeros(2, dtype=torch.int64)):
            assert model.train()(torch.zeros(2, 3, 32, 32)).shape == (2, 4)

    @pytest.mark.parametrize("name", MARGIN_LOSSES)
    def test_the_joint_step_of_every_training_learns_with_a_margin(self, name):
        loss = TaskLossConfig(name=name, scale=8.0)
        config = TrainingConfig(
            name="margin",
            model=model_config(task_loss=loss),
            mint=MintConfig(head="fully_connected", hidden=(8,)),
            optimiser=OptimiserConfig(name="adam", learning_rate=3e-3),
            epochs=1,
            batch_size=12,
            external_batch_size=4,
        )
        model = EnhancedAuditedModel.build(config, seed=7).train()
        generator = np.random.default_rng(3)
        batch = steps.new_batch(
            generator.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8),
            np.arange(16) % 4,
            steps.RowCounts(told=12, silent=0, told_only=0, external=4),
            words=np.zeros(16, dtype=np.uint32),
            config=config,
            normalisation=Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3),
        )
        objective = steps.new_objective(config.mint)
        optimiser = steps.new_optimiser(model, config.optimiser)
        losses = []
        for _ in range(30):
            found = steps.joint_losses(model, objective, batch, config)
            optimiser.zero_grad()
            found.total.backward()
            optimiser.step()
            losses.append(found.task)
        assert losses[-1] < 0.6 * losses[0]
        with torch.no_grad():
            logits, _ = model.eval()(batch.inputs)
        assert logits.abs().max() <= 8.0 + 1e-4

    def test_low_precision_does_not_blur_the_cosines(self):
        layer = CosineClassifier(4, 3, TaskLossConfig(name="arcface")).eval()
        features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = layer(features)
        assert low.dtype == torch.float32
        assert torch.equal(low, layer(features))


class TestWhatIsRefused:
    def test_training_without_labels(self):
        layer = CosineClassifier(4, 3, TaskLossConfig(name="arcface"))
        with pytest.raises(MarginLabelsError, match=r"labels of 2 rows .* found none"):
            layer(torch.zeros(2, 4))

    def test_labels_of_other_rows(self):
        layer = CosineClassifier(4, 3, TaskLossConfig(name="arcface"))
        with (
            margin_labels(layer, torch.zeros(3, dtype=torch.int64)),
            pytest.raises(MarginLabelsError, match=r"labels of 2 rows .* found \(3,\)"),
        ):
            layer(torch.zeros(2, 4))

    def test_labels_do_not_outlive_a_failed_step(self):
        layer = CosineClassifier(4, 3, TaskLossConfig(name="arcface"))
        with (
            pytest.raises(RuntimeError, match="stopped"),
            margin_labels(layer, torch.zeros(2, dtype=torch.int64)),
        ):
            raise RuntimeError("stopped")
        assert layer.labels is None

    def test_a_model_without_one_linear_layer_at_the_end(self):
        with pytest.raises(ClassifierError, match="no `get_classifier`"):
            replace_classifier(nn.Linear(3, 2), TaskLossConfig(name="arcface"))
        model = build_audited_model(model_config(), seed=0)
        model.fc = nn.Identity()
        with pytest.raises(ClassifierError, match="found a Identity"):
            replace_classifier(model, TaskLossConfig(name="arcface"))

    @pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"margin": 1.5}, {"scale": 0.0}])
    def test_settings_that_no_training_survives(self, wrong):
        with pytest.raises(ValidationError):
            TaskLossConfig(name="arcface", **wrong)
