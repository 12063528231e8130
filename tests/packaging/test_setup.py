"""The set-up script: quick when done, clear when something is missing, and careful with what is there."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sdpo.cli.doctor import locked_versions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """A copy of what the set-up reads; its root has a space in its name."""
    root = tmp_path / "a clone"
    shutil.copytree(ROOT / "requirements", root / "requirements")
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, root)
    return root


def setup(root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up with the interpreter of these tests and without a package index."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    environment |= {
        "PYTHON": sys.executable,
        "PROFILE": "cpu",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # the discard port: nobody answers
        "PIP_RETRIES": "1",
        "TORCH_INDEX": "http://127.0.0.1:9/torch",
    }
    script = root / "requirements" / "setup.sh"
    return subprocess.run([script], env=environment | variables, capture_output=True, text=True, timeout=250)


def key(root: Path) -> str:
    files = ("requirements/cpu.lock", "pyproject.toml", "setup.py", "requirements/setup.sh", "requirements/uv.py")
    return hashlib.sha256(f"{root}\n".encode() + b"".join((root / name).read_bytes() for name in files)).hexdigest()


def test_at_once_when_nothing_changed_and_not_when_something_did(clone):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    (clone / ".venv" / ".sdpo-setup").write_text(f"cpu {key(clone)}\n")
    done = setup(clone, PYTHON="/bin/false")  # would be refused, if it were looked at
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with (clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert "is missing" in setup(clone, CXX="no-such-compiler").stderr


@pytest.mark.parametrize(
    ("variables", "message", "remedy"),
    [
        ({"PROFILE": "tpu"}, "PROFILE=tpu is not a profile", "PROFILE=cpu or PROFILE=gpu"),
        ({"PYTHON": "/bin/false"}, "Python 3.11, 3.12, 3.13 or 3.14 is needed", "apt install python3.11"),
        ({"CXX": "no-such-compiler"}, "a C++ compiler (no-such-compiler) is missing", "apt install g++"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(clone, variables, message, remedy):
    done = setup(clone, **variables)
    assert done.returncode == 1
    assert message in done.stderr and remedy in done.stderr
    assert not (clone / ".venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "thesis.txt").write_text("precious")
    done = setup(clone)
    assert done.returncode == 1 and "no virtual environment" in done.stderr
    assert (clone / ".venv" / "thesis.txt").read_text() == "precious"


def test_an_incomplete_environment_and_an_index_that_does_not_answer(clone):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    (clone / ".venv" / ".half-written").touch()  # packages were being written when it was cut off
    # As the Makefile calls it: with .venv's own interpreter first on PATH, from which .venv must not be made.
    done = setup(clone, PYTHON="", PATH=f"{clone}/.venv/bin:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "making .venv anew" in done.stdout
    assert "a package index was not reached" in done.stderr and "make setup again" in done.stderr
    assert not (clone / ".venv" / ".sdpo-setup").exists()
    assert "using the .venv that is there" in setup(clone).stdout, "nothing was written, so nothing is thrown away"


def index(folder: Path, name: str, version: str) -> None:
    """Add a package of one module to a package index that is a folder."""
    stem = f"{name}-{version}"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{file},,\n" for file in files)
    (folder / name).mkdir(parents=True)
    with zipfile.ZipFile(folder / name / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    (folder / name / "index.html").write_text(f'<a href="{stem}-py3-none-any.whl">{stem}</a>\n')


@pytest.fixture
def small(clone, tmp_path):
    """The clone with a lock of three packages, an index that has two of them, and one that has torch's CPU build.

    setuptools, with which sdpo itself is built, is the locked one of these tests' environment.
    """
    uv = locked_versions("cpu")["uv"]
    (clone / "requirements" / "cpu.lock").write_text(f"# small\ncolours==1.0\ntorch==2.13.0+cpu\nuv=={uv}\n")
    index(tmp_path / "index", "colours", "1.0")
    index(tmp_path / "index", "uv", uv)
    index(tmp_path / "torch", "torch", "2.13.0+cpu")
    # The set-up uses the locked uv where the system has it.
    tools = Path(sys.executable).parent
    return clone, {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PIP_INDEX_URL": (tmp_path / "index").as_uri(),
        "TORCH_INDEX": (tmp_path / "torch").as_uri(),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }


def test_pips_index_counts_and_torchs_own_is_the_second_choice(small):
    clone, variables = small
    done = setup(clone, **variables)
    assert f"torch==2.13.0+cpu is not on the configured package index; trying {variables['TORCH_INDEX']}" in done.stdout
    site = next((clone / ".venv" / "lib").glob("python3*/site-packages"))
    assert (site / "colours.py").exists(), done.stdout + done.stderr
    assert "2.13.0+cpu" in (site / "torch.py").read_text()
    assert not (clone / ".venv" / ".half-written").exists()
    assert "sdpo could not be installed" in done.stderr, "this lock has no setuptools to build it with"
    # What the lock no longer names goes.
    lock = clone / "requirements" / "cpu.lock"
    lock.write_text(lock.read_text().replace("colours==1.0\n", ""))
    setup(clone, **variables)
    assert not (site / "colours.py").exists() and (site / "torch.py").exists()


def test_a_package_that_no_index_has_is_named(small):
    clone, variables = small
    with (clone / "requirements" / "cpu.lock").open("a") as lock:
        lock.write("sounds==2.0\n")
    done = setup(clone, **variables)
    assert done.returncode == 1 and "sounds" in done.stderr
    assert "the package index has no build of it" in done.stderr
    assert not (clone / ".venv" / ".sdpo-setup").exists()


@pytest.fixture(scope="module")
def handover():
    spec = importlib.util.spec_from_file_location("requirements_uv", ROOT / "requirements" / "uv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pips_settings_reach_uv(handover):
    lines = [
        ":env:.index-url='https://user:a b@mirror/simple'",
        "global.index-url='https://other/simple'",
        "global.extra-index-url='\\nhttps://one/simple\\nhttps://two/simple'",
        "global.timeout='15'",
        "install.default-timeout='60'",
        "global.find-links='/wheels /more'",
        "global.trusted-host='mirror'",
        "install.no-binary='numpy,scipy'",
        "global.no-cache-dir='true'",
        "global.require-hashes='false'",
        "freeze.timeout='9'",
    ]
    settings = handover.pip_settings(lines)
    assert handover.uv_variables(settings, {}) == {
        "UV_DEFAULT_INDEX": "https://user:a b@mirror/simple",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "mirror",
        "UV_HTTP_TIMEOUT": "60",
        "UV_NO_CACHE": "1",
    }
    assert handover.uv_arguments(settings) == ["--no-binary", "numpy", "--no-binary", "scipy"]


def test_what_is_set_for_uv_wins(handover):
    settings = {"index-url": "https://pip/simple", "proxy": "http://pip:1", "cert": "/pip.pem", "cache-dir": "/big"}
    present = {"UV_INDEX_URL": "https://uv/simple", "https_proxy": "http://uv:2", "SSL_CERT_DIR": "/certs"}
    assert handover.uv_variables(settings, present) == {"HTTP_PROXY": "http://pip:1", "UV_CACHE_DIR": "/big/uv"}


def test_scripts_parse():
    for script in ("requirements/setup.sh", "requirements/lock.sh", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK), script
        subprocess.run(["bash", "-n", ROOT / script], check=True)
