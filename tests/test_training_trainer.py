import copy
import threading

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.multiprocessing as mp
from disks import little_space
from torch import distributed, nn

from geounet.errors import ConfigError, GeounetWarning, ModelError, OutputError
from geounet.model import Normalisation
from geounet.networks import UNet
from geounet.segmenter import Segmenter
from geounet.training import loop
from geounet.training.augment import SYMMETRIES, Dihedral, turned, turned_back
from geounet.training.config import OptimiserConfig, ScheduleConfig
from geounet.training.dataset import Batch
from geounet.training.distilling import Teacher
from geounet.training.loop import (
    LoopConfig,
    Trainer,
    centre,
    checkpoint_gradients,
    half_type,
    learning_rate,
)
from geounet.training.losses import SingleLabelLoss, cross_entropy


class Sampler:
    """Bright is water."""

    def __init__(self, batch=2, size=16):
        self.batch, self.size, self.drawn = batch, size, 0

    def draw(self, generator):
        shape = (self.batch, 1, self.size, self.size)
        pixels = torch.rand(shape, generator=generator) + 0.01
        allowed = torch.where(pixels[:, 0] > 0.5, 2, 1).to(torch.uint8)
        self.drawn += 1
        present = torch.ones(self.batch, 1, dtype=torch.bool)
        origin = tuple(f"scene {self.drawn}.{i}" for i in range(self.batch))
        return Batch(pixels, present, torch.ones(shape, dtype=torch.bool), allowed, origin)


def network(*, dropout=0.3, padded=True, batch_norm=True):
    torch.manual_seed(0)
    body = UNet(1, 2, (4, 4), padded=padded, batch_norm=batch_norm, dropout=dropout)
    return Segmenter(body, Normalisation(mean=(-1.0,), std=(1.0,)))


def trainer(steps=6, *, net=None, sampler=None, **options):
    loss = options.pop("loss", SingleLabelLoss(cross_entropy))
    keys = ("ahead", "checkpoint", "validate", "on_best", "augment", "teacher")
    parts = {k: options.pop(k) for k in keys if k in options}
    usual = {"schedule": ScheduleConfig(warmup=2), "report_every": 1, "mixed": False}
    config = LoopConfig(**{"steps": steps, **usual, **options})
    return Trainer(net or network(), sampler or Sampler(), loss, config, **parts)


def weights(learner):
    return torch.cat([v.flatten().float() for v in learner.network.state_dict().values()])


def descent(rate=1.0, clip=1e9):
    """A step is the gradient."""
    return {
        "optimiser": OptimiserConfig(
            name="sgd", momentum=0.0, weight_decay=0.0, rate=rate, clip=clip
        ),
        "schedule": ScheduleConfig(name="constant", warmup=1),
        "validate_every": 1,
    }


OPTIMISERS = [("adamw", True, 0), ("adam", False, 3), ("sgd", False, 0)]


@pytest.mark.parametrize(("optimiser", "mixed", "ahead"), OPTIMISERS)
def test_a_resumed_training_takes_the_same_steps(tmp_path, optimiser, mixed, ahead):
    settings = {"optimiser": OptimiserConfig(name=optimiser, rate=2e-3), "mixed": mixed,
                "augment": Dihedral(), "ahead": ahead,
                "schedule": ScheduleConfig(name="plateau", patience=1),
                "validate_every": 1, "validate": lambda net: 0.0, "save_every": 2}  # fmt: skip
    whole, curve = trainer(**settings), []
    whole.run(lambda p: curve.append((p.step, p.loss, p.rate)))
    again = []
    first = trainer(**settings, checkpoint=tmp_path / "last.ckpt")
    with pytest.raises(KeyboardInterrupt):
        first.run(lambda p: again.append((p.step, p.loss, p.rate)) if p.step < 5 else stop())
    assert len(again) == 4  # killed at step 5, one step after its last checkpoint
    torch.manual_seed(99)
    second = trainer(**settings)
    second.resume(tmp_path / "last.ckpt")
    second.run(lambda p: again.append((p.step, p.loss, p.rate)))
    assert again == curve
    assert torch.equal(weights(second), weights(whole))
    second.averaged(), whole.averaged()
    assert torch.equal(weights(second), weights(whole))


def stop():
    raise KeyboardInterrupt


def test_batches_drawn_ahead_are_the_same_and_their_thread_ends():
    found = []
    for ahead in (0, 1, 4):
        learner = trainer(ahead=ahead)
        learner.run()
        found.append(weights(learner))
        assert torch.equal(found[-1], found[0])
    assert not [t for t in threading.enumerate() if t.name.startswith("geounet-batches")]


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_of_the_sampler_is_raised_at_its_batch(ahead):
    class Broken(Sampler):
        def draw(self, generator):
            if self.drawn == 3:
                raise ModelError("a broken file")
            return super().draw(generator)

    learner = trainer(sampler=Broken(), ahead=ahead)
    with pytest.raises(ModelError, match="a broken file"):
        learner.run()
    assert learner.step == 3
    assert not [t for t in threading.enumerate() if t.name.startswith("geounet-batches")]


def test_it_learns():
    torch.manual_seed(0)
    losses = []
    learner = trainer(100, net=network(dropout=0), optimiser=OptimiserConfig(rate=3e-2))
    learner.run(lambda p: losses.append(p.loss))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_no_number_names_its_batch_and_spoils_nothing(tmp_path, what):
    path, calls = tmp_path / "last.ckpt", []

    def loss(logits, allowed):
        calls.append(1)
        if len(calls) < 4:
            return logits.square().mean()
        zero = logits.abs().mean() * 0
        return zero / zero if what == "loss" else zero.sqrt()

    learner = trainer(loss=loss, checkpoint=path, save_every=1)
    with pytest.raises(ModelError, match=rf"{what} .* not at step 4, .* of scene 4.0; scene 4.1"):
        learner.run()
    assert weights(learner).isfinite().all()
    good = trainer()
    good.resume(path)
    assert good.step == 3
    for kept, left in zip(good.network.parameters(), learner.network.parameters(), strict=True):
        assert torch.equal(kept, left)


def test_accumulated_batches_are_one_large_batch():
    small = Sampler(batch=2)
    plain = OptimiserConfig(name="sgd", rate=2e-3, clip=1e9)
    added = trainer(
        1,
        net=network(dropout=0, batch_norm=False),
        sampler=small,
        optimiser=plain.model_copy(update={"accumulate": 3}),
    )
    added.run()

    class Joined:
        def draw(self, generator):
            parts = [Sampler(batch=2).draw(generator) for _ in range(3)]
            keys = ("pixels", "present", "observed", "allowed")
            return Batch(*(torch.cat([getattr(p, k) for p in parts]) for k in keys))

    net = network(dropout=0, batch_norm=False)
    whole = trainer(1, net=net, sampler=Joined(), optimiser=plain)
    whole.run()
    torch.testing.assert_close(weights(added), weights(whole), rtol=1e-5, atol=1e-6)
    assert not torch.equal(weights(added), weights(trainer(net=network(batch_norm=False))))


def test_gradients_are_clipped():
    moved = {}
    for clip in (1e-3, 1e9):
        net = network(dropout=0)
        before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
        trainer(1, net=net, **descent(clip=clip)).run()
        after = torch.cat([p.detach().flatten() for p in net.parameters()])
        moved[clip] = (after - before).norm().item()
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert moved[1e9] > 0.1


def test_it_stops_early_and_keeps_the_best():
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.9])
    best = []
    learner = trainer(100, validate=lambda net: next(scores), validate_every=2, patience=2,
                      on_best=lambda net: best.append(copy.deepcopy(net.state_dict())))  # fmt: skip
    learner.run()
    assert (learner.step, learner.best, learner.stopped) == (8, 0.5, True)
    assert len(best) == 2


def test_reports_come_in_steps_and_with_each_validation():
    seen = []
    trainer(10, report_every=4, validate_every=3).run(lambda at: seen.append(at.step))
    assert seen == [3, 4, 6, 8, 9, 10]


def test_validation_sees_the_average_and_training_goes_on_with_its_own_weights():
    seen = []

    def validate(net):
        assert not net.training
        seen.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        return 0.0

    judged = trainer(validate=validate, validate_every=3, average=0.9)
    judged.run()
    plain = trainer(average=0.9)
    plain.run()
    assert torch.equal(weights(judged), weights(plain))
    assert not torch.equal(seen[-1], torch.cat([p.flatten() for p in plain.network.parameters()]))
    plain.averaged()
    assert torch.equal(seen[-1], torch.cat([p.flatten() for p in plain.network.parameters()]))


def test_the_average_is_exponential():
    learner = trainer(3, average=0.5)
    start = learner.network.body.head.bias.detach().clone()
    path, expected = [], start
    learner.run(lambda p: path.append(learner.network.body.head.bias.detach().clone()))
    for step, value in enumerate(path):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(learner.averaged().body.head.bias.detach(), expected)


def rates(schedule, **options):
    config = LoopConfig(
        steps=100,
        optimiser=OptimiserConfig(rate=2.0),
        schedule=ScheduleConfig(name=schedule, **options),
    )
    return [learning_rate(config, step, step / 100) for step in range(101)]


def test_schedules():
    cosine = rates("cosine", warmup=10)
    assert cosine[0] == pytest.approx(0.2)
    assert cosine[50] == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert cosine[100] == pytest.approx(0.02)
    assert rates("constant", warmup=4)[:6] == pytest.approx([0.5, 1, 1.5, 2, 2, 2])
    assert rates("constant", warmup=100)[9:] == pytest.approx([2] * 92)  # a tenth of all at most
    config = LoopConfig(
        optimiser=OptimiserConfig(rate=2.0),
        schedule=ScheduleConfig(name="plateau", warmup=0, factor=0.5),
    )
    assert [learning_rate(config, 9, 0.5, drops) for drops in range(3)] == [2, 1, 0.5]


def test_one_cycle_is_torchs():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    # Torch counts its last step as the end, so that its cycle is one step longer than its ends.
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2.0, total_steps=1001)
    config = LoopConfig(
        steps=1000,
        optimiser=OptimiserConfig(rate=2.0),
        schedule=ScheduleConfig(name="onecycle"),
    )
    for step in range(1000):
        wanted = learning_rate(config, step, step / 1000)
        assert torchs.get_last_lr()[0] == pytest.approx(wanted, abs=0.01)
        optimiser.step()
        torchs.step()


def test_plateau_lowers_the_rate_when_gains_stay_away():
    seen = []
    learner = trainer(
        8,
        optimiser=OptimiserConfig(rate=1.0),
        schedule=ScheduleConfig(name="plateau", warmup=0, patience=2),
        validate_every=1,
        validate=lambda net: -1.0,
    )
    learner.run(lambda p: seen.append(p.rate))
    assert seen == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"average": 1.0}])
def test_settings_that_break_a_rule(bad):
    with pytest.raises(ConfigError, match="training needs"):
        LoopConfig(**bad)


def test_a_checkpoint_of_another_network_or_optimiser(tmp_path):
    path = tmp_path / "last.ckpt"
    trainer().save(path)
    with pytest.raises(ModelError, match=r"same network.*Missing key.*down.0.0.bias"):
        trainer(net=network(batch_norm=False)).resume(path)
    state = torch.load(path, weights_only=True)
    state["optimiser"]["param_groups"].pop()
    torch.save(state, path)
    with pytest.raises(ModelError, match="same network, optimiser"):
        trainer().resume(path)


def test_a_file_that_is_no_checkpoint_or_of_other_code(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="whole file"):
        trainer().resume(path)
    trainer().save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ModelError, match="whole file"):
        trainer().resume(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ModelError, match="other code"):
        trainer().resume(path)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "last.ckpt"
    learner = trainer()
    learner.save(path)
    before = path.read_bytes()
    with little_space(4096), pytest.raises(OutputError, match="free some space"):
        learner.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("device", "capability", "processor", "expected"),
    [
        ("cuda", (9, 0), False, torch.bfloat16),
        ("cuda:1", (8, 0), True, torch.bfloat16),
        ("cuda", (7, 5), True, torch.float16),
        ("cpu", None, True, torch.bfloat16),
        ("cpu", None, False, None),
        ("mps", None, True, None),
    ],
)
def test_half_precision_where_it_is_faster(monkeypatch, device, capability, processor, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    supported = "_is_avx512_bf16_supported"  # from PyTorch 2.5 on
    monkeypatch.setattr(torch.cpu, supported, lambda: processor, raising=False)
    assert half_type(torch.device(device)) is expected


@pytest.fixture
def old_card(monkeypatch):
    """A processor stands in for a card without bfloat16."""
    monkeypatch.setattr(loop, "half_type", lambda device: torch.float16)


def scaled(factor):
    return SingleLabelLoss(lambda logits, labels: factor * cross_entropy(logits, labels))


@pytest.mark.usefixtures("old_card")
@pytest.mark.parametrize(("factor", "rate", "clip"), [(1e-5, 1e5, 1e9), (0.1, 1.0, 1e-3)])
def test_gradients_in_float16_are_scaled_and_clipped_by_their_own_size(factor, rate, clip):
    """Too small for it; or larger than what they are clipped to."""
    moves = []
    for mixed in (True, False):
        learner = trainer(1, net=network(dropout=0), loss=scaled(factor), mixed=mixed,
                          **descent(rate, clip))  # fmt: skip
        learner.run()
        moves.append(weights(learner) - weights(trainer(net=network(dropout=0))))
    half, full = moves
    assert (half - full).norm() < 0.05 * full.norm()


@pytest.mark.usefixtures("old_card")
def test_a_step_that_overflows_in_float16_is_left_out_and_a_resumed_one_knows(tmp_path):
    path, seen = tmp_path / "last.ckpt", []
    settings = {**descent(rate=1e-5), "loss": scaled(300), "mixed": True, "save_every": 4}
    whole = trainer(12, checkpoint=path, **settings)
    before = [p.detach().clone() for p in whole.network.parameters()]

    def look(_):
        now = whole.network.parameters()
        seen.append(any(not torch.equal(a, b) for a, b in zip(before, now, strict=True)))

    whole.run(look)
    assert seen[0] is False
    assert seen[-1] is True
    again = trainer(12, **settings)
    again.resume(path)
    assert again._scaler.get_scale() == whole._scaler.get_scale() < 2**16


@pytest.mark.usefixtures("old_card")
def test_a_gradient_that_stays_no_number_in_float16_is_an_error():
    def broken(logits, labels):
        return cross_entropy(logits, labels) + (logits * 0).sum().abs().sqrt()

    with pytest.raises(ModelError, match="gradient must stay a number"):
        trainer(40, loss=SingleLabelLoss(broken), mixed=True, **descent()).run()


def test_a_training_goes_on_on_another_kind_of_device(tmp_path):
    """A checkpoint of a GPU: its generators are none of this processor's."""
    path = tmp_path / "last.ckpt"
    first = trainer(4, augment=Dihedral())
    first.run()
    first.save(path)
    state = torch.load(path, weights_only=True)
    windows, _, (host, _) = state["generators"][0]
    card = torch.zeros(16, dtype=torch.uint8)
    state |= {"device": "cuda", "generators": [(windows, card, (host, [card]))]}
    torch.save(state, path)
    second = trainer(6, augment=Dihedral())
    with pytest.warns(GeounetWarning, match="was on cuda and goes on on cpu"):
        second.resume(path)
    assert second.step == 4
    assert torch.equal(weights(second), weights(first))
    second.run()


def test_labels_under_the_output_of_an_unpadded_network():
    labels = torch.arange(36).view(1, 6, 6)
    assert centre(labels, torch.zeros(1, 2, 2, 4)).tolist() == [
        [[13, 14, 15, 16], [19, 20, 21, 22]]
    ]
    net = network(padded=False, dropout=0)
    sampler = Sampler(size=20 + 2 * net.body.geometry.margin)
    trainer(1, net=net, sampler=sampler).run()


def gradients(net):
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    net.train()
    net.body(x).square().mean().backward()
    grads = torch.cat([p.grad.flatten() for p in net.parameters()])
    norms = [m.running_var.clone() for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    return grads, torch.cat(norms)


def test_checkpointed_gradients_are_the_same_and_running_means_move_once():
    plain, forgetful = network(), network()
    checkpoint_gradients(forgetful)
    calls = []
    forgetful.body.down[0].register_forward_pre_hook(lambda m, i: calls.append(1))
    first = forgetful.body.down[0][0]
    runs = []
    first.register_forward_hook(lambda m, i, o: runs.append(1))
    for a, b in zip(gradients(plain), gradients(forgetful), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert len(runs) == 2  # forward, and again going backward
    forgetful.eval()
    forgetful.body(torch.rand(1, 1, 16, 16))
    assert len(runs) == 3


@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv4_conv_small"])
def test_checkpointed_gradients_of_encoders(encoder):
    torch.manual_seed(0)
    plain = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=2).double()
    forgetful = copy.deepcopy(plain)
    checkpoint_gradients(forgetful)
    x = torch.rand(2, 1, 32, 32).double()
    for net in (plain, forgetful):
        net.train()
        net(x).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), forgetful.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for a, b in zip(plain.buffers(), forgetful.buffers(), strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(a, b)


def meet(rank, folder):
    """One of two processes: what they train together, and one step of what they learn."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    together(rank, folder)
    alike(rank, folder)
    distributed.destroy_process_group()


def together(rank, folder):
    path = folder / "last.ckpt"
    learner = trainer(4, checkpoint=path, save_every=2)
    curve = []
    learner.run(lambda p: curve.append(p.loss))
    again = trainer(4)
    torch.save(learner.network.body.head.weight, folder / f"weight{rank}")
    torch.save(curve, folder / f"curve{rank}")
    again.resume(path)
    assert again.step == 4


def alike(rank, folder):
    """Rank r scores r, learns from the batches of seed 1000 r, and takes one step."""
    learner = trainer(1, **descent(), validate=lambda net: float(distributed.get_rank()))
    learner.run()
    assert learner.best == 0.0  # that of the first, whose network is kept
    torch.save(weights(learner), folder / f"weights{rank}")


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    """The folder where two processes left what they learned."""
    folder = tmp_path_factory.mktemp("met")
    mp.spawn(meet, (folder,), nprocs=2)
    return folder


def test_two_processes_train_one_network(met):
    a, b = (torch.load(met / f"weight{rank}") for rank in range(2))
    assert torch.equal(a, b)
    curves = [torch.load(met / f"curve{rank}") for rank in range(2)]
    assert curves[0] != curves[1]  # each on batches of its own


def test_gradients_of_processes_are_averaged(met):
    moves = []
    for seed in (0, 1000):
        alone = trainer(1, **descent(), seed=seed)
        alone.run()
        moves.append(weights(alone) - weights(trainer()))
    moved = torch.load(met / "weights0") - weights(trainer())
    learned = torch.cat([torch.full((v.numel(),), "running" not in k and "num_" not in k)
                         for k, v in network().state_dict().items()])  # fmt: skip
    mean = torch.stack(moves).mean(0)
    torch.testing.assert_close(moved[learned], mean[learned], atol=1e-6, rtol=1e-4)
    assert (moves[0] - moves[1])[learned].abs().max() > 1e-3


# -- a teacher -------------------------------------------------------------------------------------


def drawn(seed=0, size=16):
    return Sampler(size=size).draw(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("code", range(SYMMETRIES))
def test_what_is_turned_comes_back(code):
    windows = torch.arange(24).view(2, 3, 4)
    assert torch.equal(turned_back(turned(windows, code), code), windows)


def test_symmetries_differ():
    seen = {tuple(turned(torch.arange(9).view(3, 3), c).flatten().tolist()) for c in range(8)}
    assert len(seen) == SYMMETRIES == 8


def test_answers_lie_where_the_pixels_do():
    """A network that looks at single pixels answers alike, however the window is turned."""
    net = Segmenter(nn.Conv2d(1, 2, 1), Normalisation(mean=(-1.0,), std=(1.0,))).eval()
    batch = drawn()
    batch.observed[:, :, :3] = False
    plain = net(batch.pixels, batch.present.float(), torch.zeros(2, 1), batch.observed).softmax(1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(12):
        assert torch.allclose(Teacher(net).answer(batch, generator), plain, atol=1e-6)


def test_a_teacher_sees_the_bands_that_its_student_does_without():
    torch.manual_seed(0)
    net = Segmenter(nn.Conv2d(2, 2, 1), Normalisation(mean=(-1.0,) * 2, std=(1.0,) * 2)).eval()
    batch = drawn()
    batch.pixels, batch.present = batch.pixels.repeat(1, 2, 1, 1), batch.present.repeat(1, 2)

    def answer():
        return Teacher(net).answer(batch, torch.Generator().manual_seed(1))

    both = answer()
    for _ in range(2):  # once left out, and once more
        batch.leave_out(torch.tensor([[True, False], [True, True]]))
        assert batch.present.tolist() == [[True, False], [True, True]]
        assert not batch.pixels[0, 1].any()
        assert torch.equal(answer(), both)
    batch.whole = None
    assert not torch.allclose(answer()[0], both[0], atol=1e-3)
    assert torch.equal(answer()[1], both[1])


def test_every_symmetry_is_drawn():
    net, batch, generator = network(dropout=0).eval(), drawn(), torch.Generator().manual_seed(0)
    answers = [Teacher(net).answer(batch, generator) for _ in range(80)]
    assert len({round(float(a[0, 0, 2, 3]), 6) for a in answers}) == SYMMETRIES


def test_the_divergence_from_the_teacher_by_its_formula():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    answer = torch.zeros(2, 3, 4, 4)
    answer[:, 0] = 1  # 0 log 0 is 0
    answer[1] = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(3)).softmax(0)
    observed = torch.ones(2, 4, 4, dtype=torch.bool)
    observed[:, 0] = False
    entropy = -torch.special.xlogy(answer, answer).sum(1)
    each = -(answer * logits.log_softmax(1)).sum(1) - entropy
    found = Teacher(network(), weight=3.0).loss(logits, answer, observed)
    assert torch.allclose(found, 3 * each[:, 1:].mean())
    assert Teacher(network()).loss(logits, logits.softmax(1), observed) < 1e-6


def test_a_student_learns_what_its_teacher_answers():
    """The labels say nothing here."""

    class Unlabelled(Sampler):
        def draw(self, generator):
            batch = super().draw(generator)
            batch.allowed[:] = 0
            return batch

    torch.manual_seed(0)
    teacher, student = (
        Segmenter(nn.Conv2d(1, 2, 1), Normalisation(mean=(-1.0,), std=(1.0,))) for _ in range(2)
    )
    before = copy.deepcopy(teacher.state_dict())
    losses = []
    made = trainer(
        120,
        net=student,
        sampler=Unlabelled(4),
        optimiser=OptimiserConfig(rate=0.02),
        teacher=Teacher(teacher),
    )
    made.run(lambda progress: losses.append(progress.loss))
    assert losses[-1] < 0.02 * losses[0]
    assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in before.items())
