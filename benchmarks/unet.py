"""Rate of the U-Net beside the same network in PyTorch: `python benchmarks/unet.py`; its accuracy: `... --accuracy`.

Both run in one process in turns (batch of 8 x 256^2, depth 4, 16 channels, float32, all cores), and medians and ratios are
printed. PyTorch is left out, with a word, where it is not installed. `--width 32` measures the wider network.
Accuracy is that of the shipped weights on simulated slices drawn from keys that training never saw: over the whole range of
the training slices, by contrast, and on slices matched to the bundled tomogram (`jaxmem train --like`), with one view of each
slice, which is what `jaxmem segment` uses, and with the mean over four of its symmetries.
"""

import argparse
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from record import recorded

from jaxmem.io import read_mrc
from jaxmem.numerics import compiler_options
from jaxmem.pipeline import match_tomogram
from jaxmem.unet import Predictor, TrainConfig, UNet, UNetConfig, dice_per_class, load_weights, segmentation_loss
from jaxmem.unet.predict import logits_in_blocks
from jaxmem.unet.train import simulate_set


def jax_runs(width: int, dtype):
    model = UNet(UNetConfig(depth=4, width=width), nnx.Rngs(0))
    graph, params = nnx.split(model, nnx.Param)
    optimiser = optax.adamw(1e-3)
    x = jax.random.normal(jax.random.key(0), (8, 256, 256)).astype(dtype)
    y = jax.random.randint(jax.random.key(1), (8, 256, 256), 0, 3)

    def step(params, state):
        def objective(p):
            return segmentation_loss(nnx.merge(graph, p)(x).astype(jnp.float32), y)

        updates, state = optimiser.update(jax.grad(objective)(params), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1), compiler_options=compiler_options())
    infer = jax.jit(lambda p: logits_in_blocks(nnx.merge(graph, p), x), compiler_options=compiler_options())
    held = [jax.tree.map(jnp.copy, params), optimiser.init(params)]

    def train():
        held[:] = step(*held)
        jax.block_until_ready(held)

    return train, lambda: jax.block_until_ready(infer(params))


def torch_runs(width: int, channels_last: bool, bf16: bool):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [width * 2**k for k in range(4)]

            def pair(i, o):
                return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU())

            self.down = nn.ModuleList([pair(i, o) for i, o in zip([1, *widths], widths)])
            self.rise = nn.ModuleList([nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[:-1]])
            self.up = nn.ModuleList([pair(2 * w, w) for w in widths[:-1]])
            self.head = nn.Conv2d(width, 3, 1)

        def forward(self, x):
            skips = []
            for k, block in enumerate(self.down):
                x = block(x)
                if k < 3:
                    skips.append(x)
                    x = nn.functional.max_pool2d(x, 2)
            for k in (2, 1, 0):
                x = self.up[k](torch.cat([skips[k], self.rise[k](x)], 1))
            return self.head(x)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = Net().to(memory_format=layout)
    x = torch.randn(8, 1, 256, 256).to(memory_format=layout)
    y = torch.randint(0, 3, (8, 256, 256))
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
    context = torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    def train():
        optimiser.zero_grad()
        with context:
            logits = net(x)
        logits = logits.float()
        p = logits.softmax(1)
        truth = nn.functional.one_hot(y, 3).permute(0, 3, 1, 2)
        overlap = 2 * (p * truth).sum((0, 2, 3)) + 1
        dice = overlap / (p.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)
        (nn.functional.cross_entropy(logits, y) + 1 - dice.mean()).backward()
        optimiser.step()

    def infer():
        with torch.no_grad(), context:
            net(x)

    return train, infer


def accuracy() -> None:
    data = Path(str(resources.files("jaxmem") / "data"))
    mask = np.asarray(read_mrc(data / "phantom_labels.mrc.gz").data)
    like = match_tomogram(read_mrc(data / "phantom.mrc.gz"), mask)
    config = TrainConfig()
    card = jax.random.split(jax.random.key(config.seed), 5)[3]  # the key of `train`'s ten held-out slices
    sets = [("10 held out, whole range", card, config.slices, 10)]
    sets += [("40, whole range", jax.random.key(77), config.slices, 40)]
    for low, high in ((2.5, 3.5), (4.0, 5.0), (7.0, 9.0), (11.0, 15.0)):
        sets.append(
            (f"40, contrast {low}-{high}", jax.random.key(77), replace(config.slices, contrast=(low, high)), 40)
        )
    name = f"matched to the bundled tomogram (contrast {like.contrast[0]:.1f}-{like.contrast[1]:.1f})"
    sets += [(f"10, {name}", jax.random.key(78), like, 10), (f"100, {name}", jax.random.key(79), like, 100)]
    model = load_weights(flat=True)[0]
    views = {k: Predictor(model, symmetries=k) for k in (1, 4)}
    print("| slices | pixels right, 1 view | 4 views | Dice background | protein | membrane |")
    print("|---|---|---|---|---|---|")
    for name, key, slices, n in sets:
        images, labels = simulate_set(key, slices, n, lambda _: None)
        decided = {k: np.stack([p.argmax(-1) for p in f(images / np.float32(20))]) for k, f in views.items()}
        right = [f"{100 * (d == labels).mean():.2f} %" for d in decided.values()]
        truth = jnp.asarray(labels.astype(np.int32).ravel())
        dice = dice_per_class(jax.nn.one_hot(decided[4].ravel(), 3), truth)
        print(
            f"| {name} | {right[0]} | {right[1]} | " + " | ".join(f"{v:.3f}" for v in dice.tolist()) + " |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 too")
    parser.add_argument("--accuracy", action="store_true", help="measure accuracy instead of rates")
    args = parser.parse_args()
    if args.accuracy:
        accuracy()
        return
    runs = {"jaxmem float32": jax_runs(args.width, jnp.float32)}
    if args.bf16:
        runs["jaxmem bfloat16"] = jax_runs(args.width, jnp.bfloat16)
    try:
        runs["PyTorch float32"] = torch_runs(args.width, False, False)
        runs["PyTorch float32, channels last"] = torch_runs(args.width, True, False)
        if args.bf16:
            runs["PyTorch bfloat16"] = torch_runs(args.width, False, True)
    except ImportError:
        print("PyTorch is not installed: no comparison")
    times: dict[tuple[str, int], list[float]] = {(name, k): [] for name in runs for k in (0, 1)}
    for repeat in range(args.repeats + 1):
        for name, pair in runs.items():
            for k in (0, 1):
                start = time.perf_counter()
                pair[k]()
                if repeat:  # the first is compilation and warm-up
                    times[name, k].append(time.perf_counter() - start)
    rate = {key: 8 / float(np.median(values)) for key, values in times.items()}
    reference = rate.get(("PyTorch float32", 0)), rate.get(("PyTorch float32", 1))
    print(f"| width {args.width}, images/s | training | inference | training / PyTorch | inference / PyTorch |")
    print("|---|---|---|---|---|")
    for name in runs:
        ratios = [f"{rate[name, k] / r:.2f}" if (r := reference[k]) else "-" for k in (0, 1)]
        print(f"| {name} | {rate[name, 0]:.1f} | {rate[name, 1]:.1f} | {ratios[0]} | {ratios[1]} |")


if __name__ == "__main__":
    with recorded("unet"):
        main()
