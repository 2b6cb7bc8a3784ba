"""The loop learns, resumes exactly, and stops when the loss breaks."""

import pytest
import torch

from geounet.errors import ConfigError, ModelError
from geounet.model import Architecture, ModelSpec, Normalisation, default_bands
from geounet.segmenter import build_network
from geounet.training.augment import Dihedral
from geounet.training.config import OptimiserConfig, ScheduleConfig
from geounet.training.dataset import LabelledScene, MemorySource, WindowSampler
from geounet.training.loop import LoopConfig, Trainer
from geounet.training.losses import PartialLabelLoss

SPEC = ModelSpec(
    name="tiny",
    architecture=Architecture(
        encoder="resnet18", options={"encoder_depth": 3, "decoder_channels": (16, 8, 8)}
    ),
    bands=default_bands(),
    classes=("land", "water", "obscured"),
    normalisation=Normalisation(mean=(-2.5,) * 12, std=(1.0,) * 12),
)


def made_sampler():
    """A lake on land: water is dark in the near infrared and beyond."""
    rows, cols = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    lake = (rows - 48) ** 2 + (cols - 40) ** 2 < 900
    pixels = torch.full((12, 96, 96), 2000, dtype=torch.int16)
    pixels[:, lake] = 600
    pixels[6:, lake] = 100
    allowed = torch.where(lake, 2, 1).to(torch.uint8)
    scene = LabelledScene.index("lake", MemorySource(pixels, allowed), (True,) * 12, site="lake")
    return WindowSampler([scene], 32, 4)


def make_trainer(steps, *, sampler=None, checkpoint=None):
    torch.manual_seed(0)
    config = LoopConfig(
        steps=steps,
        optimiser=OptimiserConfig(rate=2e-3),
        schedule=ScheduleConfig(warmup=5),
        report_every=1,
        save_every=4,
        mixed=False,
    )
    return Trainer(
        build_network(SPEC),
        sampler or made_sampler(),
        PartialLabelLoss(),
        config,
        augment=Dihedral(),
        checkpoint=checkpoint,
    )


def test_thirty_steps_lower_the_loss():
    losses = []
    make_trainer(30).run(lambda p: losses.append(p.loss))
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_resume_gives_the_same_curve_and_weights(tmp_path):
    path = tmp_path / "last.pt"
    whole, rest = [], []
    first = make_trainer(8, checkpoint=path)

    def stop_after_five(progress):
        whole.append(progress.loss)
        if progress.step == 4:
            first.save(tmp_path / "four.pt")

    first.run(stop_after_five)
    second = make_trainer(8)
    second.resume(tmp_path / "four.pt")
    second.run(lambda p: rest.append(p.loss))
    assert rest == whole[4:]
    for name, value in first.averaged().state_dict().items():
        assert torch.equal(value, second.averaged().state_dict()[name]), name
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert path.exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    make_trainer(1).save(tmp_path / "a.pt")
    other = SPEC.model_copy(update={"architecture": Architecture(encoder="resnet18")})
    trainer = Trainer(build_network(other), made_sampler(), PartialLabelLoss(), LoopConfig())
    with pytest.raises(ModelError, match="same network"):
        trainer.resume(tmp_path / "a.pt")


def test_a_loss_that_is_no_number_stops_the_run():
    trainer = make_trainer(3)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="at step 1"):
        trainer.run()


def test_the_rate_rises_then_falls_to_a_hundredth():
    rates = []
    make_trainer(50).run(lambda p: rates.append(p.rate))
    assert rates[0] < rates[4] == max(rates)
    assert rates[-1] < 0.02 * max(rates)


def test_senseless_settings_are_refused():
    with pytest.raises(ConfigError, match="steps >= 1"):
        LoopConfig(steps=0)
