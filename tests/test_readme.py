"""The README's samples work as they stand there, in its order, on a fresh place."""

import re
import subprocess

import pytest
from conftest import TOOLKIT, Place

# ```sh runs here; ```bash needs GitHub, Hugging Face or a model
README = (TOOLKIT / "README.md").read_text()
SAMPLES = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, uv_cache) -> Place:
    """A stranger's place; the samples name artifacts/ themselves, so the toolkit is a clone whose artifacts/ they may fill."""
    root = tmp_path_factory.mktemp("readme")
    clone = root / "toolkit"
    subprocess.run(["git", "clone", "-q", str(TOOLKIT), str(clone)], check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(root)})
    # what is not committed yet is tested too
    listed = subprocess.run(["git", "-C", str(TOOLKIT), "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True).stdout.split()
    subprocess.run(["tar", "-C", str(TOOLKIT), "-cf", str(root / "x.tar"), *(name for name in listed if (TOOLKIT / name).exists())], check=True)
    subprocess.run(["tar", "-C", str(clone), "-xf", str(root / "x.tar")], check=True)
    (clone / ".venv").symlink_to(TOOLKIT / ".venv")
    made = Place(root, uv_cache)
    del made.env["ARTIFACTS"]
    made.root = clone
    return made


@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=lambda number: SAMPLES[number].split("\n")[0][:40])
def test_a_sample_of_the_readme_works_as_written(reader: Place, number: int) -> None:
    done = reader.run("bash", "-euo", "pipefail", "-c", SAMPLES[number], cwd=reader.root)
    assert done.stdout.strip()
    if "make run-sample" in SAMPLES[number]:
        report = reader.run("jq", ".resolved_instances", "artifacts/results/sample-gold/report.json", cwd=reader.root)
        assert report.stdout.strip() == "5"


def test_the_first_thing_that_the_readme_says_is_make_run_sample() -> None:
    assert SAMPLES[0].startswith("make run-sample")
