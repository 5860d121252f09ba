"""Records say where and from which commit they come."""

import subprocess

from jaxml.bench import records


def test_the_environment_names_device_versions_and_commit():
    place = records.environment()
    assert {"device", "cores", "python", "jax", "jaxlib", "flax", "optax", "numpy"} <= place.keys()
    assert place["cores"] >= 1 and place["commit"] == records.commit()


def test_the_commit_is_that_of_the_checkout_and_marks_changes(tmp_path, monkeypatch):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@b.c"]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)

    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.commit() is None  # No checkout.
    git("init")
    (tmp_path / "records.py").write_text("1\n")
    git("add", "-A")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD").stdout.strip()
    assert records.commit() == head
    (tmp_path / "untracked").write_text("")
    assert records.commit() == head
    (tmp_path / "records.py").write_text("2\n")
    assert records.commit() == head + "+"

    def no_git(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert records.commit() is None
