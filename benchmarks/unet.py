"""Training and inference rate of the U-Net beside the same network in PyTorch: `python benchmarks/unet.py`.

Both run in one process in turns (batch of 8 x 256^2, depth 4, 16 channels, float32, all cores), and medians and ratios are
printed. PyTorch is left out, with a word, where it is not installed. `--width 32` measures the wider network.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxmem.numerics import compiler_options
from jaxmem.unet import UNet, UNetConfig, segmentation_loss


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
    infer = jax.jit(lambda p: nnx.merge(graph, p)(x), compiler_options=compiler_options())
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="measure bfloat16 too")
    args = parser.parse_args()
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
    main()
