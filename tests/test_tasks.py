"""bin/tasks: rows in, public records out; what cannot be used is refused by name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, SAMPLE_IDS, TOOLKIT, Place

DESIGNED = {"instance_id", "repo", "base_commit", "version", "problem_statement", "created_at", "dataset", "run"}
GOLD = ("patch", "test_patch", "FAIL_TO_PASS", "PASS_TO_PASS", "hints_text", "install_config", "environment_setup_commit")


def row(instance_id: Any = "acme__tool-1", **other: Any) -> dict[str, Any]:
    made = {
        "instance_id": instance_id,
        "repo": "acme/tool",
        "base_commit": "0123456789abcdef" * 2 + "01234567",
        "version": "1.0",
        "problem_statement": "It is broken.",
        "created_at": "2020-01-01T00:00:00Z",
        "patch": "the-secret-fix",
        "test_patch": "the-secret-tests",
        "FAIL_TO_PASS": ["tests/test_it.py::test_fails"],
        "PASS_TO_PASS": ["tests/test_it.py::test_passes"],
    } | other
    return {key: value for key, value in made.items() if value is not ...}


def write(file: Path, rows: list[Any]) -> Path:
    if file.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if file.suffix == ".json" else "".join(f"{json.dumps(one)}\n" for one in rows))
    return file


def ids(place: Place, *words: str | Path, **more: Any) -> list[str]:
    return [record["instance_id"] for record in place.records("bin/tasks", "--dataset", "sample", *words, **more)]


def test_records_have_the_designed_keys_and_nothing_of_the_solution(place: Place) -> None:
    done = place.run("bin/tasks", "--dataset", "sample", "--run", "mine")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["instance_id"] for record in records] == SAMPLE_IDS
    for record in records:
        assert set(record) == DESIGNED
        assert record == {key: ROWS[record["instance_id"]][key] for key in DESIGNED - {"dataset", "run"}} | {"dataset": "sample", "run": "mine"}
    assert done.stderr == ""


@pytest.mark.parametrize("names", [list, json.dumps], ids=["a list", "a JSON string"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_every_file_format_gives_the_same_records_and_rows(place: Place, tmp_path: Path, suffix: str, names: Any) -> None:
    rows = [row(f"acme__tool-{n}", FAIL_TO_PASS=names(["a", "b"]), PASS_TO_PASS=names([])) for n in (1, 2)]
    file = write(tmp_path / f"data{suffix}", rows)
    done = place.run("bin/tasks", "--dataset", file, "--run", "mine")
    wanted = [row(f"acme__tool-{n}", dataset=str(file), run="mine") for n in (1, 2)]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{key: one[key] for key in DESIGNED} for one in wanted]
    assert "secret" not in done.stdout
    [stored] = (place.artifacts / "cache/datasets").glob("data-*.jsonl")
    assert [(kept["FAIL_TO_PASS"], kept["PASS_TO_PASS"]) for kept in map(json.loads, stored.read_text().splitlines())] == [(["a", "b"], [])] * 2


BAD = [
    *((row("bad-1", **{key: ...}), f"'bad-1'.*no field {key}") for key in ("repo", "base_commit", "patch", "test_patch", "problem_statement", "FAIL_TO_PASS", "PASS_TO_PASS")),
    (row(..., repo="acme/other"), "None.*no field instance_id"),
    (row("bad-1", base_commit="main"), "'bad-1'.*base_commit 'main'"),
    (row("bad-1", base_commit="abc1234"), "'bad-1'.*base_commit 'abc1234'"),
    (row("bad-1", base_commit="--upload-pack=touch"), "'bad-1'.*base_commit '--upload-pack=touch'"),
    (row("bad-1", repo="../../etc"), "'bad-1'.*repo '../../etc'"),
    (row("bad-1", FAIL_TO_PASS="[not json"), "'bad-1'.*FAIL_TO_PASS is not JSON"),
    (row("bad-1", PASS_TO_PASS=[1, 2]), "'bad-1'.*PASS_TO_PASS is not a list of test names"),
    (row("bad-1", patch=7), "'bad-1'.*patch is not text"),
    *((row(name), f"{re.escape(repr(name))}.*instance_id is not made of") for name in ("../x", "/abs", "..", ".", "two\nlines", "end-of-line\n", "", "a b", "caf\u00e9", 7)),
    (row("good-2"), "'good-2'.*second row"),
    ("a string", "not an object"),
]


def test_a_bad_row_is_refused_by_name_and_the_others_come_out(place: Place, tmp_path: Path) -> None:
    file = write(tmp_path / "data.jsonl", [row("good-2"), *(bad for bad, _ in BAD), row("good-3")])
    done = place.run("bin/tasks", "--dataset", file, code=1)
    assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == ["good-2", "good-3"]
    lines = done.stderr.splitlines()
    assert len(lines) == len(BAD)
    for number, (line, (_, said)) in enumerate(zip(lines, BAD), 2):
        assert re.search(f"^tasks: row {number} .*refused: ", line) and re.search(said, line)


def test_a_line_that_is_not_json_is_refused_with_its_number(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(json.dumps(row("acme__tool-2")).encode() + b'\n\n{"instance_id": "cut\n' + json.dumps(row("acme__tool-3")).encode() + b"\n")
    done = place.run("bin/tasks", "--dataset", file, code=1)
    assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == ["acme__tool-2", "acme__tool-3"]
    assert len(done.stderr.splitlines()) == 1 and "refused" in done.stderr


def test_ids_are_given_as_arguments_as_a_list_or_in_a_file(place: Place, tmp_path: Path) -> None:
    first, second, third = SAMPLE_IDS[3], SAMPLE_IDS[0], SAMPLE_IDS[4]
    (tmp_path / "ids").write_text(f"{first}\n\n{second}\n{third}")
    wanted = [first, second, third]
    assert ids(place, *wanted) == wanted
    assert ids(place, "--ids", f"{first}, {second}\n{third}") == wanted
    assert ids(place, "--ids", f"{first},{second},{first},{third}") == wanted
    assert ids(place, "--ids", f"@{tmp_path}/ids") == wanted
    assert ids(place, "--ids", f"@{tmp_path}/ids", "--where", '.repo == "swerun-sample/gridlab"') == [one for one in wanted if "gridlab" in one]


def test_where_start_sample_and_seed_choose(place: Place) -> None:
    assert ids(place, "--where", '.repo == "swerun-sample/textkit"') == [one for one in SAMPLE_IDS if "textkit" in one]
    assert ids(place, "--where", "false") == []
    assert ids(place, "--start", "1", "--sample", "2") == SAMPLE_IDS[1:3]
    assert ids(place, "--start", "4", "--sample", "9") == SAMPLE_IDS[4:]
    assert ids(place, "--sample", "0") == []
    orders = [ids(place, "--seed", seed) for seed in ("1", "1", "2", "3")]
    assert orders[0] == orders[1] and all(sorted(order) == sorted(SAMPLE_IDS) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert ids(place, "--seed", "1", "--start", "1", "--sample", "3") == orders[0][1:4]


def test_an_option_comes_from_its_flag_else_from_the_environment(place: Place) -> None:
    assert ids(place, START="3") == SAMPLE_IDS[3:]
    assert ids(place, "--start", "1", START="3") == SAMPLE_IDS[1:]
    [record] = place.records("bin/tasks", DATASET="sample", IDS=SAMPLE_IDS[2], RUN="mine")
    assert (record["instance_id"], record["dataset"], record["run"]) == (SAMPLE_IDS[2], "sample", "mine")


@pytest.mark.parametrize("words", [
    ["--dataset", "no-such-dataset"],
    ["--dataset", "no-such-file.jsonl"],
    ["--dataset", "{tmp}/folder.jsonl"],
    ["--dataset", "{tmp}/broken.json"],
    ["--dataset", "{tmp}/number.json"],
    ["--dataset", "{tmp}/text.json"],
    ["--dataset", "{tmp}/broken.parquet"],
    ["no-such-id"],
    ["--ids", "no-such-id,nor-this"],
    ["--ids", "@{tmp}/no-such-file"],
    ["--ids", "@{tmp}/broken.parquet"],
    ["--where", ".repo =="],
    ["--where", "nosuchfunction(1)"],
    ["--where", ".repo + 1"],
    ["--start", "one"],
    ["--start", "-1"],
    ["--sample", "1.5"],
    ["--sample", "²"],
    ["--run", "../elsewhere"],
], ids=" ".join)
def test_a_wrong_call_ends_with_2_and_one_line(place: Place, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name, data in (("broken.json", b"[{"), ("number.json", b"5"), ("text.json", b'"text"'), ("broken.parquet", b"PAR1\xff\xfe not parquet")):
        (tmp_path / name).write_bytes(data)
    chosen = [word.replace("{tmp}", str(tmp_path)) for word in words]
    done = place.run("bin/tasks", *([] if "--dataset" in words else ["--dataset", "sample"]), *chosen, code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("tasks: "), done.stderr


def test_a_reader_that_has_had_enough_ends_it_quietly(place: Place, tmp_path: Path) -> None:
    file = write(tmp_path / "many.jsonl", [row(f"acme__tool-{n}", problem_statement="long " * 100) for n in range(3000)])
    done = place.run("bash", "-c", f"set -o pipefail; {TOOLKIT}/bin/tasks --dataset {file} | head -1")
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""
