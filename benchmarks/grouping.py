"""Which segments belong together, beside classical linking: `python benchmarks/grouping.py` (`linking`, `walking`, `learning`, `picture` for a part).

`linking`: 500 simulated slices that no training saw (`simulate.ContourModel`: up to 12 membranes, nested and touching ones, 0 to 60 %
of every contour missing in 1 to 12 gaps, 0 to 20 % stray pieces), cut into segments in order. Adjusted Rand index over pixels and
share of membranes found exactly, by the share that is missing: joining nearest ends, matching of least cost, matching on the
policy's own gains, one greedy walk, and the best set of chains out of 13 walks. `walking`: 300 slices drawn with lines 1, 3
and 5 pixels thick, thinned and walked over: straight on at every junction, and by the trained policy. `learning`: 200 slices with 30 to
60 % missing, with twice as many walks, and with learning on each slice without labels. `picture` draws `docs/images/linking.png`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matching import best_matching, gain_from_cost, nearest_ends
from matplotlib.figure import Figure
from record import recorded

from jaxmem.grouping.rl.environment import Policy
from jaxmem.grouping.rl.learning import LearningConfig
from jaxmem.grouping.rl.linker.environment import LinkTask, link_task
from jaxmem.grouping.rl.linker.lessons import Lesson, lesson, summarised
from jaxmem.grouping.rl.linker.linking import best_of_walks, learn_and_link
from jaxmem.grouping.rl.linker.policy import link_gains, walk_once
from jaxmem.grouping.rl.linker.train import Lessons, draw_lessons, score_table
from jaxmem.grouping.rl.walker.lessons import judge, junction_table
from jaxmem.grouping.rl.walker.policy import paths_of, straight_on, walk_lines
from jaxmem.grouping.rl.walker.state import WalkTask
from jaxmem.grouping.rl.walker.train import WalkTraining, task_drawer
from jaxmem.grouping.rl.weights import load_linker, load_walker
from jaxmem.simulate import ContourModel, draw_contours

PARTS = ["linking", "walking", "learning", "picture"]
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "linking.png"
CAPACITY, SLICES, WALKS, SLICES_WALKED, SLICES_LEARNT = 128, 500, 12, 300, 200
BATCH = None if jax.default_backend() == "cpu" else 200  # slices at a time
REACH, MOST = 40.0, 60.0  # the baselines' settings, pixels; 90 for the second was no better on slices of another key


def timed(go: Callable, *args) -> tuple[np.ndarray, float]:
    """The result of a compiled function, and seconds of a second call."""
    jax.block_until_ready(go(*args))
    begin = time.perf_counter()
    out = jax.block_until_ready(go(*args))
    return np.asarray(out), time.perf_counter() - begin


def methods(tasks: LinkTask) -> dict[str, tuple[np.ndarray, float]]:
    """Groups by each method, and seconds for all slices (baselines: one after the other, features of pairs not counted)."""
    linker, n = load_linker(), len(tasks.owner)
    one = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), tasks) for i in range(n)]
    out = {}
    begin = time.perf_counter()
    out["nearest end"] = np.stack([nearest_ends(t, REACH) for t in one]), time.perf_counter() - begin
    begin = time.perf_counter()
    found = np.stack([best_matching(t, gain_from_cost(t, MOST)) for t in one])
    out["matching of least cost"] = found, time.perf_counter() - begin
    gain, spent = timed(jax.jit(lambda all_: jax.lax.map(lambda t: link_gains(linker.policy, t), all_)), tasks)
    begin = time.perf_counter()
    found = np.stack([best_matching(t, g) for t, g in zip(one, gain)])
    out["matching on the policy's gains"] = found, spent + time.perf_counter() - begin
    keys = jax.random.split(jax.random.key(1), n)
    greedy = jax.jit(
        lambda keys, all_: jax.lax.map(
            lambda one: walk_once(one[0], linker.policy, one[1]), (keys, all_), batch_size=BATCH or 20
        )
    )
    out["one greedy walk"] = timed(greedy, keys, tasks)
    many = jax.jit(
        lambda keys, all_: jax.lax.map(
            lambda one: best_of_walks(one[0], linker.policy, linker.judge, one[1], WALKS),
            (keys, all_),
            batch_size=BATCH,
        )
    )
    out[f"best set of {WALKS + 1} walks"] = timed(many, keys, tasks)
    return out


def linking() -> None:
    lessons = draw_lessons(jax.random.key(2026), ContourModel(), SLICES, CAPACITY)
    make = jax.jit(lambda all_: jax.lax.map(lambda one: link_task(*one), all_))
    tasks, spent = make((lessons.segments, lessons.follows, lessons.owner)), 0.0
    begin = time.perf_counter()
    jax.block_until_ready(make((lessons.segments, lessons.follows, lessons.owner)))
    spent = time.perf_counter() - begin
    print(f"features of pairs: {SLICES / spent:.0f} slices/s")
    rows = {name: (score_table(found, lessons), SLICES / seconds) for name, (found, seconds) in methods(tasks).items()}
    bins = list(next(iter(rows.values()))[0])
    for what in ("adjusted_rand", "exact"):
        print(f"\n| {what}, share missing | " + " | ".join(bins) + " | slices/s |")
        print("|---" * (len(bins) + 2) + "|")
        for name, (table, rate) in rows.items():
            print(f"| {name} | " + " | ".join(f"{table[b][what]:.3f}" for b in bins) + f" | {rate:.1f} |")
    first = next(iter(rows.values()))[0]
    print("\nslices: " + ", ".join(f"{b}: {first[b]['slices']}" for b in bins))


def learning() -> None:
    """Slices with large gaps, linked as they are, by twice as many walks, and after learning on each of them without labels."""
    model = ContourModel(gap_fraction=(0.3, 0.6))
    lessons = draw_lessons(jax.random.key(2027), model, SLICES_LEARNT, CAPACITY // 2)
    tasks = jax.jit(lambda all_: jax.lax.map(lambda one: link_task(*one), all_))(
        (lessons.segments, lessons.follows, lessons.owner)
    )
    linker, keys = load_linker(), jax.random.split(jax.random.key(3), SLICES_LEARNT)

    print(
        "| adjusted Rand index, share exact | 30-40 % | 40-50 % | 50-60 % | all | slices/s |\n|---|---|---|---|---|---|"
    )

    def row(name: str, go: Callable) -> None:
        found, spent = timed(
            jax.jit(lambda all_: jax.lax.map(lambda one: go(*one), all_, batch_size=BATCH)), (keys, tasks)
        )
        cells = [f"{t['adjusted_rand']:.4f}, {t['exact']:.3f}" for t in score_table(found, lessons).values()]
        print(f"| {name} | " + " | ".join(cells) + f" | {SLICES_LEARNT / spent:.2f} |", flush=True)

    row("13 walks", lambda k, t: best_of_walks(k, linker.policy, linker.judge, t, WALKS))
    row("26 walks", lambda k, t: best_of_walks(k, linker.policy, linker.judge, t, 2 * WALKS + 1))
    how = LearningConfig(3e-4, entropy=0.01)
    row(
        "13 walks, 20 steps of learning, 13 walks",
        lambda k, t: learn_and_link(k, linker.policy, linker.judge, t, WALKS, how),
    )


def walked_over(policy: Policy, tasks: list[WalkTask]) -> tuple[float, int, float]:
    """Share of the pixels that paths hold, once each; jumps within paths; slices per second, the first not counted."""
    go = jax.jit(lambda task: walk_lines(policy, task))
    jax.block_until_ready(go(tasks[0]))
    begin = time.perf_counter()
    walks = [jax.tree.map(np.asarray, go(task)) for task in tasks]
    rate = len(tasks) / (time.perf_counter() - begin)
    paths = [path for walk in walks for path in paths_of(*walk)]
    jumps = sum(int((np.abs(np.diff(path, axis=0)).max(1) != 1).sum()) for path in paths if len(path) > 1)
    return sum(map(len, paths)) / sum(int(task.line.sum()) for task in tasks), jumps, rate


def walking() -> None:
    config = WalkTraining(contours=ContourModel())
    draw_task = task_drawer(jax.random.key(2026), config)
    tasks = [draw_task(i) for i in range(SLICES_WALKED)]
    print(
        "| thickness | policy | pixels visited | jumps | junctions right: all | clear | eyes | strays | twigs | slices/s |"
    )
    print("|---" * 10 + "|")
    for k, thickness in enumerate((*config.thickness, "all")):
        some = tasks if thickness == "all" else tasks[k :: len(config.thickness)]
        for name, policy in (("straight on", straight_on), ("trained", load_walker().policy)):
            share, jumps, rate = walked_over(policy, some)
            go = judge(policy)
            table = junction_table([go(task) for task in some])
            rows = [
                f"{row['right']:.3f} of {row['junctions']}" if row["junctions"] else "none" for row in table.values()
            ]
            right = " | ".join(rows)
            print(f"| {thickness} | {name} | {100 * share:.2f} % | {jumps} | {right} | {rate:.0f} |")


def draw(axes, given: Lesson, group: np.ndarray, title: str) -> None:
    """Segments in the colour of their group; groups of one segment grey."""
    from matplotlib import colormaps

    colours = colormaps["tab20"].colors
    names, size = np.unique(group[: len(given.paths)], return_counts=True)
    colour = {g: colours[k % 20] for k, g in enumerate(names[size > 1])}
    for path, g, loop in zip(given.paths, group, given.closed):
        shown = colours[2 * (int(g) % 10)] if loop else colour.get(g, "0.6")
        axes.plot(path[:, 1], path[:, 0], color=shown, linewidth=1.6)
    axes.set(xlim=(0, 255), ylim=(255, 0), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def picture() -> None:
    """A slice with 35 to 40 % missing: its segments, four ways of linking, and the truth."""
    model, key = ContourModel(gap_fraction=(0.35, 0.4), membranes=(8, 10)), jax.random.key(11)
    given = lesson(np.random.default_rng(0), jax.tree.map(np.asarray, jax.jit(lambda k: draw_contours(k, model))(key)))
    row = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], summarised(given, (256, 256), CAPACITY))
    lessons = Lessons(*row, jnp.zeros(1))
    tasks = jax.vmap(link_task)(lessons.segments, lessons.follows, lessons.owner)
    found = methods(tasks)
    figure = Figure(figsize=(10, 7))
    panels = [("segments", np.arange(CAPACITY))] + [(name, groups[0]) for name, (groups, _) in found.items()]
    panels = [p for p in panels if "gains" not in p[0]] + [("truth", np.asarray(given.owner))]
    for k, (title, group) in enumerate(panels):
        axes = figure.add_subplot(2, 3, k + 1)
        draw(axes, given, group, title)
        if title == "segments":
            for number, path in enumerate(given.paths):
                y, x = path[len(path) // 2]
                axes.text(x, y, str(number + 1), fontsize=5)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    print(PICTURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", choices=PARTS, default=PARTS)
    with recorded("grouping"):
        for part in parser.parse_args().part:
            globals()[part]()
