"""What a build needs is what it was asked to build."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CMAKE = os.path.join(os.environ.get("SWITCHYARD_VENV", ROOT / ".venv"), "bin", "cmake")


def test_a_build_without_the_trainer_needs_neither_cuda_nor_torch(tmp_path):
    only = ["-DSWITCHYARD_TRAINER=OFF", "-DSWITCHYARD_SERVICE=OFF", "-DSWITCHYARD_TESTS=OFF"]
    done = subprocess.run(
        [CMAKE, "-G", "Ninja", "-S", ROOT, "-B", tmp_path / "build", f"-DSWITCHYARD_VENV={tmp_path}", *only],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "build" / "kernels").exists()
