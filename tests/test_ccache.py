"""Builds compile through ccache where there is one: by the compiler's own names, whatever folder they are in."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROWS, Place

NAME = "swerun-sample__gridlab-11"  # has a C extension
FAKE = """#!/bin/bash
name=${0##*/}
[ -n "$CCACHE_DIR" ] && [ -n "$CCACHE_BASEDIR" ] && [ -n "$CCACHE_NOHASHDIR" ] && [ -n "$CCACHE_MAXSIZE" ] || exit 3
echo "$name $*" >> "$CCACHE_DIR/asked.txt"
PATH=${PATH//"$CCACHE_DIR/compilers:"/} exec "$name" "$@"
"""


def compiled(place: Place) -> list[str]:
    file = place.artifacts / "cache/ccache/asked.txt"
    return [line for line in file.read_text().splitlines() if " -c " in line] if file.is_file() else []


@pytest.mark.slow
def test_a_build_and_a_patched_tree_compile_through_ccache(place: Place, tmp_path: Path):
    folder = tmp_path / "with-ccache"
    folder.mkdir()
    (folder / "ccache").write_text(FAKE)
    (folder / "ccache").chmod(0o755)
    path = f"{folder}:{place.env['PATH']}"
    place.run("bin/precache", "--dataset", "sample", NAME, PATH=path)
    first = compiled(place)
    assert first and not any("ccache" in line.split()[0] for line in first)
    patch = ROWS[NAME]["patch"]
    record = {"instance_id": NAME, "dataset": "sample", "run": "r", "model_patch": patch, "model_name_or_path": "x"}
    made = place.records("bin/run-tests", input=json.dumps(record) + "\n", PATH=path)[0]
    assert made["resolved"] and len(compiled(place)) > len(first)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ccache"), reason="no ccache on this machine")
def test_another_folder_compiles_nothing_again(place: Place):
    ccache = place.artifacts / "cache/ccache"
    count = lambda: {key: int(value) for key, value in (line.split("\t") for line in place.run("ccache", "--print-stats", CCACHE_DIR=str(ccache)).stdout.splitlines())}
    place.run("bin/precache", "--dataset", "sample", NAME)
    before = count()
    assert before["cache_miss"]
    for layer in ccache.parent.glob("layers/*"):
        shutil.rmtree(layer) if layer.is_dir() else layer.unlink()
    place.run("bin/precache", "--dataset", "sample", NAME)
    after = count()
    hits = lambda of: of["direct_cache_hit"] + of["preprocessed_cache_hit"]
    assert after["cache_miss"] == before["cache_miss"] and hits(after) > hits(before)
