"""The cache gives back what nobody needs, and never what a task stands on; DISK_LIMIT holds while a run goes on."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from conftest import ROWS, Place

ROW = ROWS["swerun-sample__textkit-19"]
IDS = ("textkit-19", "textkit-14", "textkit-23")
MIB = 2**20


def dataset(folder: Path, *names: str, ballast: int = 0) -> Path:
    """Tasks with a layer each, and an environment for each but the first two, which share theirs; a layer holds so many bytes."""
    rows = []
    for number, name in enumerate(names):
        packages = ["iniconfig==2.0.0"] if number < 2 else ["iniconfig==2.0.0", "pluggy==1.5.0"]
        config = ROW["install_config"] | {"seed": [], "pip_packages": packages, "install": f"(echo {name}; head -c {ballast} /dev/zero) > ballast.bin", "test_cmd": "true"}
        rows.append(ROWS[f"swerun-sample__{name}"] | {"instance_id": name, "install_config": config})
    file = folder / "tasks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def there(place: Place, kind: str) -> set[str]:
    pattern = "*/*" if kind == "histories" else "*"
    return {path.name for path in (place.artifacts / "cache" / kind).glob(pattern) if path.is_dir()}


def layer_of(place: Place, name: str) -> Path:
    [found] = [path for path in (place.artifacts / "cache/layers").glob(f"*{ROWS[f'swerun-sample__{name}']['base_commit'][:12]}-*") if path.is_dir()]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> tuple[Place, Path]:
    root = tmp_path_factory.mktemp("gc")
    place, tasks = Place(root, uv_cache), dataset(root, *IDS)
    assert len(place.records("bin/precache", "--dataset", tasks, *IDS)) == 3
    return place, tasks


def test_what_the_known_datasets_need_stays_and_everything_works_without_building(made):
    place, tasks = made
    before = {kind: there(place, kind) for kind in ("layers", "environments", "histories", "mirrors")}
    assert {kind: len(names) for kind, names in before.items() if kind != "histories"} == {"layers": 3, "environments": 2, "mirrors": 1}
    done = place.run("make", "-s", "gc")
    assert "freed 0.00 GiB: nothing" in done.stderr
    assert {kind: there(place, kind) for kind in before} == before
    assert "building" not in place.run("bin/setup-venv", "--dataset", tasks, "--run", "again", *IDS).stderr


def test_chosen_tasks_keep_what_they_need_and_the_rest_goes_and_comes_back(made):
    place, tasks = made
    for folder in (place.artifacts / "worktrees").glob("*"):
        place.run("rm", "-rf", folder)
    (place.artifacts / "cache/layers/gone-already.making").mkdir()
    said = place.run("scripts/gc", "--dataset", tasks, "--ids", "textkit-19", "--dry", "1").stderr
    assert "would free 2 layers, 1 environment" in said and len(there(place, "layers")) == 4
    said = place.run("scripts/gc", "--dataset", tasks, "--ids", "textkit-19").stderr
    assert "2 layers, 1 environment" in said and "1 leftovers" in said
    assert there(place, "layers") == {layer_of(place, "textkit-19").name} and len(there(place, "environments")) == len(there(place, "mirrors")) == 1
    done = place.run("bin/setup-venv", "--dataset", tasks, "--run", "back", *IDS)
    assert len(done.stdout.splitlines()) == 3 and done.stderr.count("building environment") == 1
    place.run("rm", "-rf", place.artifacts / "worktrees/back")


def test_what_a_worktree_stands_on_stays(made):
    place, tasks = made
    [record] = place.records("bin/setup-venv", "--dataset", tasks, "--run", "kept", "textkit-23")
    place.run("scripts/gc", "--dataset", tasks, "--ids", "textkit-19")
    assert record["env_key"] in there(place, "environments") and ROWS["swerun-sample__textkit-23"]["base_commit"] in there(place, "histories")
    assert place.run(f"{record['venv']}/bin/python", "-c", "import pluggy").returncode == 0
    assert place.run("git", "-C", record["worktree"], "log", "--oneline").stdout
    place.run("bin/precache", "--dataset", tasks, *IDS)
    place.run("rm", "-rf", place.artifacts / "worktrees/kept")


def test_what_a_process_works_with_stays_and_is_said(made):
    place, tasks = made
    place.run("bin/precache", "--dataset", tasks, *IDS)
    held = layer_of(place, "textkit-14")
    with open(held.with_name(f"{held.name}.use"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as make-worktree, setup-venv, run-agent and run-tests hold it
        said = place.run("scripts/gc", "--dataset", tasks, "--ids", "textkit-19").stderr
    assert held.is_dir() and "left 1 layer that running tasks or kept worktrees use" in said


def test_a_running_agents_layer_environment_and_history_are_held(made, agent, tmp_path: Path):
    place, tasks = made
    stop = "exec scripts/gc --dataset {tasks} --ids textkit-19"
    script = agent(f"cd {Path(__file__).parents[1]}; ARTIFACTS={place.artifacts} {stop.format(tasks=tasks)} > {tmp_path}/said 2>&1")
    [record] = place.records("bin/run-agent", "--dataset", tasks, "--run", "held", "--agent", script, "textkit-23")
    assert record["agent"]["status"] == "completed"
    said = (tmp_path / "said").read_text()
    assert "left" in said and layer_of(place, "textkit-23").is_dir(), said
    assert "building" not in place.run("bin/run-tests", "--dataset", tasks, input=json.dumps(record) + "\n").stderr


def test_with_DISK_LIMIT_the_layer_used_longest_ago_goes_first_and_every_task_is_still_done(place: Place, tmp_path: Path):
    tasks = dataset(tmp_path, *IDS, ballast=40 * MIB)
    place.run("bin/precache", "--dataset", tasks, "textkit-19", "textkit-14")
    layers = {name: layer_of(place, name) for name in IDS[:2]}
    os.utime(layers["textkit-19"].with_name(layers["textkit-19"].name + ".use"), (1, 1))
    sizes = place.run("du", "-s", "-B1", *(place.artifacts / "cache" / kind for kind in ("pool", "environments", "layers")))
    taken = sum(int(line.split()[0]) for line in sizes.stdout.splitlines())  # du counts what is linked once
    assert taken > 80 * MIB
    limit = f"{(taken + 20 * MIB) / 2**30:.3f}"  # two of the three fit
    done = place.run("make", "-s", "run", "-j1", DATASET=str(tasks), AGENT="gold", RUN="limited", IDS="textkit-23", DISK_LIMIT=limit)
    assert "used least recently" in done.stderr
    assert not layers["textkit-19"].exists() and layers["textkit-14"].is_dir() and layer_of(place, "textkit-23").is_dir()
    done = place.run("make", "-s", "run", "-j2", DATASET=str(tasks), AGENT="gold", RUN="all", DISK_LIMIT=limit)
    assert all(place.state("all", name, "tests.json")["tests"]["status"] in ("ran", "no_tests_ran") for name in IDS)
    assert not list(place.artifacts.glob("cache/*/*.gone"))


@pytest.mark.parametrize("limit", ["x", "0", "-3"])
def test_a_limit_that_is_none_is_a_usage_error_in_a_line(made, limit: str):
    place, tasks = made
    done = place.run("scripts/gc", "--dataset", tasks, f"--disk-limit={limit}", code=2)
    assert "DISK_LIMIT" in done.stderr.splitlines()[-1]


def test_without_any_dataset_nothing_is_freed(place: Place):
    (place.artifacts / "cache/layers/a-layer").mkdir(parents=True)
    done = place.run("scripts/gc", code=2)
    assert "no dataset is known" in done.stderr and (place.artifacts / "cache/layers/a-layer").is_dir()
