"""bin/make-worktree: a checkout that has its past and no object that is newer."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROWS, TOOLKIT, Place

SECRET = "the fix is to swap the arguments"
LINKED = (".claude", ".mcp.json", ".mcp-the-force", "claude_hooks")


class Source(NamedTuple):
    """A repository with a future: main is commits 0 to 7 of 2020 and 2022, the branch `side` of 2021 leaves it at 2 and comes back with 6."""

    folder: Path
    commits: list[str]
    side: list[str]
    dataset: Path

    def git(self, *words: str, date: str = "2022-02-01T12:00:00Z", **more: Any) -> str:
        who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "A"), ("EMAIL", "a@example.com"), ("DATE", date))}
        env = {"HOME": str(self.folder.parent), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"} | who
        return subprocess.run(["git", "-C", str(self.folder), *words], check=True, capture_output=True, text=True, env=env, **more).stdout.strip()

    def objects(self, *tips: str) -> set[str]:
        return {line.split()[0] for line in self.git("rev-list", "--objects", *tips).splitlines()}

    def rows(self, **commits: str) -> Path:
        """A dataset with a row for each base commit named."""
        rest = {"repo": "acme/tool", "patch": SECRET, "test_patch": "", "problem_statement": "broken", "FAIL_TO_PASS": [], "PASS_TO_PASS": []}
        self.dataset.write_text("".join(json.dumps({"instance_id": name, "base_commit": commit} | rest) + "\n" for name, commit in commits.items()))
        return self.dataset


@pytest.fixture
def source(git_repository: Any, tmp_path: Path) -> Source:
    lines = "".join(f"line {n}\n" for n in range(40))
    files = [{"tool.py": lines.replace("line 3\n", f"line 3 of {n}\n"), f"notes/{n}.txt": f"note {n}\n"} for n in range(5)]
    folder, commits = git_repository("tool", files)
    made = Source(folder, commits, [], tmp_path / "rows.jsonl")
    made.git("checkout", "-q", "-b", "side", commits[2])
    for n in (0, 1):
        (folder / f"side{n}.txt").write_text(f"side {n}\n")
        made.git("add", "-A")
        made.git("commit", "-q", "-m", f"side {n}", date=f"2021-01-1{n}T12:00:00Z")
        made.side.append(made.git("rev-parse", "HEAD"))
    made.git("checkout", "-q", "main")
    for n in (5, 6, 7):
        (folder / f"{n}.txt").write_text(f"{SECRET} {n}\n")
        made.git("merge", "-q", "--no-commit", "side") if n == 6 else None
        made.git("add", "-A")
        made.git("commit", "-q", "-m", f"{SECRET} {n}")
        made.commits.append(made.git("rev-parse", "HEAD"))
    made.git("tag", "v0.1", commits[1])
    made.git("tag", "-a", "v0.2", commits[3], "-m", "the second", date="2020-01-04T13:00:00Z")
    made.git("tag", "-a", "on-side", made.side[0], "-m", "on the side", date="2021-01-10T13:00:00Z")
    made.git("tag", "-a", "late", commits[2], "-m", SECRET, date="2023-01-01T12:00:00Z")
    made.git("tag", "-a", "v1.0", commits[7], "-m", SECRET, date="2023-01-01T12:00:00Z")
    made.git("tag", "v1.1", commits[6])
    return made


def look(checkout: Path, *words: str, check: bool = True) -> str:
    """git as an agent would run it: an empty HOME, no configuration."""
    env = {"HOME": str(checkout.parent / "nobody"), "PATH": os.environ["PATH"], "GIT_EDITOR": "false"}
    return subprocess.run(["git", "-C", str(checkout), *words], check=check, capture_output=True, text=True, env=env).stdout.strip()


def seen(checkout: Path) -> set[str]:
    """Every object that git can reach from a checkout, packed, loose or through alternates."""
    return {line.split()[0] for line in look(checkout, "cat-file", "--batch-all-objects", "--batch-check").splitlines()}


def worktree(place: Place, source: Source, name: str, remote: Any = None, **more: Any) -> Path:
    remote = remote or f"{source.folder.parent}/{{name}}"
    [record] = place.records("bin/make-worktree", "--dataset", source.dataset, "--run", "r", "--remote", remote, name, **more)
    assert record["worktree"] == str(place.artifacts / "worktrees/r" / name / "testbed")
    return Path(record["worktree"])


def assert_sealed(checkout: Path, source: Source, commit: str, *tag_objects: str) -> None:
    """Exactly the past of a commit, with the tags that are there and were there then."""
    assert look(checkout, "rev-parse", "HEAD") == commit
    assert seen(checkout) == source.objects(commit, *tag_objects)
    past = source.git("rev-list", commit).splitlines()
    assert sorted(look(checkout, "log", "--all", "--reflog", "--format=%H").splitlines()) == sorted(past)
    assert look(checkout, "fsck", "--full", "--lost-found", "--unreachable") == "" and look(checkout, "reflog") == ""
    packed = [line.strip("^").split()[0] for line in (checkout / ".git/packed-refs").read_text().splitlines() if not line.startswith("#")]
    assert set(packed) <= seen(checkout)
    [alternate] = (checkout / ".git/objects/info/alternates").read_text().splitlines()
    assert not (Path(alternate) / "info/alternates").exists()
    assert not [file for name in ("FETCH_HEAD", "ORIG_HEAD", "logs", "worktrees", "modules") for file in (checkout / ".git").glob(name)]
    assert SECRET not in "".join(file.read_text() for file in (checkout / ".git").rglob("*") if file.is_file() and file.name != "index")
    assert look(checkout, "status", "--porcelain", "--ignored") == "" and look(checkout, "remote") == ""


@pytest.fixture(params=["path", "relative path", "mapping", "JSON mapping", "file URL"])
def remote(request: pytest.FixtureRequest, source: Source, tmp_path: Path) -> str:
    pattern, mapping = f"{source.folder.parent}/{{name}}", tmp_path / "remotes"
    if "mapping" in request.param:
        known = {"acme/other": "/nowhere", "*": pattern}
        mapping.write_text(json.dumps(known) if "JSON" in request.param else "# where they are\n" + "".join(f"{repo} {url}\n" for repo, url in known.items()))
        return str(mapping)
    return {"path": pattern, "relative path": "repositories/{name}", "file URL": f"file://{pattern}"}[request.param]


def test_a_worktree_holds_its_past_and_nothing_newer(place: Place, source: Source, remote: str, tmp_path: Path) -> None:
    source.rows(old=source.commits[1], base=source.commits[4], tip=source.side[1], merged=source.commits[6])
    tag = {name: source.git("rev-parse", f"refs/tags/{name}") for name in ("v0.2", "on-side")}
    # newest first and last: a history stands on those of older base commits that are there, whatever the order
    assert_sealed(worktree(place, source, "base", remote, cwd=tmp_path), source, source.commits[4], tag["v0.2"])
    assert_sealed(worktree(place, source, "old", remote, cwd=tmp_path), source, source.commits[1])
    assert_sealed(worktree(place, source, "merged", remote, cwd=tmp_path), source, source.commits[6], *tag.values())
    assert_sealed(worktree(place, source, "tip", remote, cwd=tmp_path), source, source.side[1], tag["on-side"])
    refs = look(place.artifacts / "worktrees/r/base/testbed", "for-each-ref", "--format=%(refname) %(objecttype)").splitlines()
    assert refs == ["refs/heads/main commit", "refs/tags/late commit", "refs/tags/v0.1 commit", "refs/tags/v0.2 tag"]


def test_a_tag_written_after_the_base_commit_shows_only_its_name(place: Place, source: Source) -> None:
    source.rows(base=source.commits[4])
    checkout = worktree(place, source, "base")
    assert look(checkout, "rev-parse", "late") == source.commits[2]
    assert SECRET not in look(checkout, "tag", "-n9") and "the second" in look(checkout, "tag", "-n9")
    assert look(checkout, "cat-file", "-t", source.git("rev-parse", "refs/tags/late"), check=False) == ""
    assert look(checkout, "tag", "--list") == "late\nv0.1\nv0.2"


def test_a_tag_stays_hidden_where_an_older_commit_has_a_later_date(place: Place, source: Source) -> None:
    source.git("checkout", "-q", "--detach", source.commits[4])
    dates = {"skewed": "2030-01-01T12:00:00Z", "base": "2020-02-01T12:00:00Z"}
    commits = {}
    for name, date in dates.items():
        source.git("commit", "-q", "--allow-empty", "-m", name, date=date)
        commits[name] = source.git("rev-parse", "HEAD")
    source.git("tag", "-a", "between", commits["skewed"], "-m", SECRET, date="2025-01-01T12:00:00Z")
    source.git("checkout", "-q", "main")
    source.rows(**commits)
    for name in dates:
        checkout = worktree(place, source, name)
    assert look(checkout, "rev-parse", "between") == commits["skewed"]
    assert_sealed(checkout, source, commits["base"], source.git("rev-parse", "refs/tags/v0.2"))


def test_git_works_in_a_worktree_without_any_configuration(place: Place, source: Source) -> None:
    source.rows(base=source.commits[4])
    checkout = worktree(place, source, "base")
    assert look(checkout, "log", "--format=%s") == "\n".join(f"commit {n}" for n in (4, 3, 2, 1, 0))
    assert look(checkout, "describe", "--tags", "--long").startswith("v0.2-1-g")
    blamed = look(checkout, "blame", "-s", "-l", "--root", "tool.py").splitlines()
    assert blamed[3].startswith(source.commits[4]) and blamed[30].startswith(source.commits[0])
    (checkout / "tool.py").write_text("changed\n")
    (checkout / "new.txt").write_text("new\n")
    assert "+changed" in look(checkout, "diff")
    # on a machine whose accounts have no names
    known = ("-c", "user.useConfigOnly=true")
    look(checkout, *known, "stash", "--include-untracked")
    assert look(checkout, "status", "--porcelain") == ""
    look(checkout, "stash", "pop")
    assert look(checkout, "status", "--porcelain") == "M tool.py\n?? new.txt"
    look(checkout, "checkout", "-q", "-b", "mine")
    look(checkout, "add", "-A")
    look(checkout, *known, "commit", "-q", "-m", "my change")
    assert look(checkout, "log", "-1", "--format=%s %P") == f"my change {source.commits[4]}"


@pytest.mark.parametrize("by", ["", "file://"], ids=["path", "URL"])
def test_a_base_commit_that_no_branch_holds_is_fetched_by_its_id(place: Place, source: Source, by: str) -> None:
    source.git("checkout", "-q", "-b", "gone", source.commits[4])
    (source.folder / "gone.txt").write_text("gone\n")
    source.git("add", "-A")
    source.git("commit", "-q", "-m", "on a branch that is gone")
    commit = source.git("rev-parse", "HEAD")
    source.git("checkout", "-q", "main")
    source.git("branch", "-q", "-D", "gone")
    source.git("config", "uploadpack.allowAnySHA1InWant", "true")
    source.rows(base=commit)
    checkout = worktree(place, source, "base", f"{by}{source.folder.parent}/{{name}}")
    assert_sealed(checkout, source, commit, source.git("rev-parse", "refs/tags/v0.2"))


def test_pull_requests_reach_no_worktree_and_no_mirror_made_by_url(place: Place, source: Source) -> None:
    (source.folder / "pull.txt").write_text(SECRET)
    source.git("add", "-A")
    source.git("commit", "-q", "-m", SECRET)
    pull = source.git("rev-parse", "HEAD")
    source.git("update-ref", "refs/pull/1/head", pull)
    source.git("reset", "-q", "--hard", source.commits[7])
    source.rows(base=source.commits[7])
    for name, url in (("path", ""), ("url", "file://")):
        there = Place(place.root / name, Path(place.env["UV_CACHE_DIR"]))
        checkout = worktree(there, source, "base", f"{url}{source.folder.parent}/{{name}}")
        assert pull not in seen(checkout) and source.commits[7] in seen(checkout)
        mirror = there.artifacts / "cache/mirrors/acme__tool.git"
        assert "refs/pull" not in look(mirror, "for-each-ref")
        assert not url or pull not in seen(mirror)


@pytest.mark.parametrize("command", [["bin/make-worktree"], ["bin/precache", "--step", "histories"]], ids=["make-worktree", "precache"])
def test_a_base_commit_that_does_not_exist_is_named_and_the_others_go_on(place: Place, source: Source, command: list[str]) -> None:
    absent = "deadbeef" * 5
    dataset = source.rows(first=source.commits[1], lost=absent, last=source.commits[4])
    done = place.run(*command, "--dataset", dataset, "--run", "r", "--remote", f"{source.folder.parent}/{{name}}", "first", "lost", "last", code=1)
    failed = [line for line in done.stderr.splitlines() if "failed" in line]
    assert len(failed) == 1 and "lost" in failed[0] and absent in failed[0]
    assert {path.parent.name for path in place.artifacts.glob("cache/histories/*/*/complete")} == {source.commits[1], source.commits[4]}
    if command == ["bin/make-worktree"]:
        assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == ["first", "last"]


def test_a_copy_that_lacks_a_file_serves_the_base_commits_that_do_not_need_it(place: Place, source: Source) -> None:
    dataset = source.rows(before=source.commits[1], broken=source.commits[3], after=source.commits[4])
    blob = source.git("rev-parse", f"{source.commits[3]}:tool.py")
    (source.folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    done = place.run("bin/make-worktree", "--dataset", dataset, "--run", "r", "--remote", source.folder, "before", "broken", "after", code=1)
    assert [json.loads(line)["instance_id"] for line in done.stdout.splitlines()] == ["before", "after"]
    [failed] = [line for line in done.stderr.splitlines() if "failed" in line]
    assert "broken: failed" in failed and "lacks 1 files" in failed and source.commits[3][:12] in failed and "tool.py" in failed
    for name, number in (("before", 1), ("after", 4)):
        assert (place.artifacts / "worktrees/r" / name / "testbed/tool.py").read_text().startswith(f"line 0\nline 1\nline 2\nline 3 of {number}\n")


def test_forty_checkouts_of_one_repository_at_once_are_all_right(place: Place) -> None:
    instance_id = "swerun-sample__textkit-14"
    command = f"parallel --will-cite -j40 {TOOLKIT}/bin/make-worktree --dataset sample --run run-{{}} {instance_id} ::: {{1..40}}"
    done = place.run("bash", "-c", command)
    checkouts = [Path(json.loads(line)["worktree"]) for line in done.stdout.splitlines()]
    assert len(set(checkouts)) == 40
    for checkout in checkouts:
        assert look(checkout, "rev-parse", "HEAD") == ROWS[instance_id]["base_commit"]
        assert look(checkout, "status", "--porcelain") == ""


def config(folder: Path) -> Path:
    """A folder with all that is linked into worktrees."""
    (folder / ".claude/skills").mkdir(parents=True)
    (folder / ".claude/settings.json").write_text('{"from": "CONFIG"}')
    (folder / ".mcp.json").write_text('{"mcpServers": {}}')
    (folder / ".mcp-the-force").mkdir()
    (folder / "claude_hooks").mkdir()
    return folder


def test_configuration_is_linked_and_is_no_change(place: Place, source: Source, tmp_path: Path) -> None:
    source.rows(base=source.commits[4])
    checkout = worktree(place, source, "base", CONFIG=str(config(tmp_path / "config")))
    assert [name for name in LINKED if (checkout / name).exists()] == list(LINKED)
    assert json.loads((checkout / ".claude/settings.json").read_text()) == {"from": "CONFIG"}
    assert look(checkout, "status", "--porcelain", "--untracked-files=all") == ""


def test_linked_configuration_is_in_no_patch(warm: Place, agent: Any, tmp_path: Path) -> None:
    works = agent('set -e; test -e .claude/settings.json; echo more >> .claude/settings.json; rm .mcp.json; echo mine > .mcp.json; echo "# fixed" >> README.md')
    words = ("--dataset", "sample", "--run", "linked-configuration", "--agent", works, "swerun-sample__textkit-14")
    [record] = warm.records("bin/run-agent", *words, CONFIG=str(config(tmp_path / "config")))
    assert record["agent"]["status"] == "completed"
    assert [line for line in record["model_patch"].splitlines() if line.startswith("diff")] == ["diff --git a/README.md b/README.md"]


def test_a_tracked_configuration_is_left_alone(place: Place, source: Source, tmp_path: Path) -> None:
    (source.folder / ".claude").mkdir()
    (source.folder / ".claude/settings.json").write_text('{"from": "the project"}')
    source.git("add", "-A")
    source.git("commit", "-q", "-m", "settings")
    source.rows(base=source.git("rev-parse", "HEAD"))
    checkout = worktree(place, source, "base", CONFIG=str(config(tmp_path / "config")))
    assert not (checkout / ".claude").is_symlink() and json.loads((checkout / ".claude/settings.json").read_text()) == {"from": "the project"}
    assert (checkout / ".mcp.json").is_symlink() and look(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize("through", ["", "a link"])
def test_nothing_of_the_home_folder_is_linked_and_it_is_said_once(place: Place, source: Source, through: str) -> None:
    config(place.home)
    link = place.root / "link"
    link.symlink_to(place.home)
    home = str(link if through else place.home)
    dataset = source.rows(base=source.commits[4], old=source.commits[1])
    done = place.run("bin/make-worktree", "--dataset", dataset, "--run", "r", "--remote", source.folder, "base", "old", HOME=home, CONFIG=home)
    for line in done.stdout.splitlines():
        assert not [name for name in LINKED if os.path.lexists(Path(json.loads(line)["worktree"], name))]
    assert done.stderr.count("home folder") == 1


def test_what_a_killed_process_left_half_made_is_replaced(place: Place, source: Source) -> None:
    source.rows(base=source.commits[4])
    history = place.artifacts / "cache/histories/acme__tool"
    for folder in (place.artifacts / "worktrees/r/base/testbed/.git", history / f"{source.commits[4]}.making/objects/pack", history / source.commits[4] / "objects"):
        folder.mkdir(parents=True)
        (folder / "half-written").write_text("x")
    (place.artifacts / "worktrees/r/base/testbed/junk.py").write_text("x")
    (place.artifacts / "worktrees/r/base/testbed/.git").chmod(0o500)
    checkout = worktree(place, source, "base")
    assert_sealed(checkout, source, source.commits[4], source.git("rev-parse", "refs/tags/v0.2"))
    assert not (history / f"{source.commits[4]}.making").exists() and not list(history.rglob("half-written"))


@pytest.mark.parametrize("left", ["a cut clone", "a cut fetch"])
def test_a_half_made_mirror_is_made_whole(place: Place, source: Source, left: str) -> None:
    source.rows(base=source.commits[4])
    making = place.artifacts / "cache/mirrors/acme__tool.making"
    if left == "a cut fetch":
        # git writes HEAD before it makes the folder of objects
        making.mkdir(parents=True)
        (making / "HEAD").write_text("ref: refs/heads/main\n")
    else:
        shutil.copytree(source.folder / ".git", making)
        shutil.rmtree(making / "refs")
    checkout = worktree(place, source, "base", f"{'file://' if left == 'a cut fetch' else ''}{source.folder.parent}/{{name}}")
    assert look(checkout, "rev-parse", "HEAD") == source.commits[4] and not making.exists()


@pytest.mark.slow
def test_git_may_take_longer_than_half_a_minute(place: Place, source: Source, tmp_path: Path) -> None:
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/bash\n[[ " $* " = *" pack-objects "*" --revs "* ]] && sleep 32\nexec {shutil.which("git")} "$@"\n')
    slow.chmod(0o755)
    source.rows(base=source.commits[4])
    checkout = worktree(place, source, "base", PATH=f"{slow.parent}:{place.env['PATH']}")
    assert look(checkout, "rev-parse", "HEAD") == source.commits[4]
