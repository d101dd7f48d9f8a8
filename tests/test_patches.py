"""model_patch: whatever an agent does to its worktree, the patch is what it changed, and taking it runs nothing of the agent's."""

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, Place

ID, EDITED = "swerun-sample__textkit-14", "swerun-sample__textkit-23"  # the spec of the second edits pyproject.toml before it installs
LEFTOVERS = (".git", "__pycache__", "textkit.egg-info")


def solve(place: Place, run: str, agent: Path, instance_id: str = ID, **more: Any) -> dict[str, Any]:
    done = place.run("bin/run-agent", "--run", run, "--agent", agent, instance_id, **{"DATASET": "sample", "KEEP": "1", "timeout": 60} | more)
    return json.loads(done.stdout)


def tree(folder: Path) -> dict[bytes, tuple[str, bytes]]:
    """Every file but git's and Python's own, by its name in bytes: what it is, what is in it."""
    found = {}
    for at, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if os.fsdecode(name) not in LEFTOVERS]
        for name in [*files, *(one for one in folders if os.path.islink(os.path.join(at, one)))]:
            path = os.path.join(at, name)
            if os.fsdecode(name) in LEFTOVERS or stat.S_ISFIFO(os.lstat(path).st_mode) or stat.S_ISSOCK(os.lstat(path).st_mode):
                continue
            link = os.path.islink(path)
            kind = "link" if link else "program" if os.access(path, os.X_OK) and os.stat(path).st_mode & 0o100 else "file"
            found[os.path.relpath(path, os.fsencode(folder))] = (kind, os.readlink(path) if link else open(path, "rb").read())
    return found


def checkout(place: Place, run: str, instance_id: str = ID, patch: str = "") -> Path:
    """A clean checkout, with a patch applied by git."""
    [record] = place.records("bin/make-worktree", "--dataset", "sample", "--run", f"{run}-clean", instance_id)
    folder = Path(record["worktree"])
    if patch:
        env = {"HOME": str(place.home), "PATH": os.environ["PATH"]}
        done = subprocess.run(["git", "-C", str(folder), "apply", "--whitespace=nowarn", "-"], input=patch.encode(), capture_output=True, env=env)
        assert done.returncode == 0, done.stderr.decode()
    return folder


CHANGES = {
    "creates": "mkdir -p a/b && echo new > a/b/new.txt; printf 'no end of line' > end; : > empty; printf 'a\\r\\nb\\r\\n' > crlf.txt",
    "deletes": "rm -r docs CHANGELOG.md && git rm -q tests/test_slug.py",
    "renames": "mv src/textkit/slug.py src/textkit/slugs.py && git mv README.md README.rst && echo more >> README.rst",
    "changes modes": "chmod +x README.md; printf '#!/bin/sh\\n' > run.sh; chmod 755 run.sh",
    "edits": "echo '# fixed' >> src/textkit/slug.py; sed -i 1,2d README.md; : > LICENSE",
    "adds binary files": "head -c 5000 /dev/urandom > data.bin; printf '\\0\\1' >> docs/logo.png",
    "uses odd names": "for n in 'with space.txt' 'ünïcødé.txt' '-dash' '#hash' '[a-z]*.txt' 'back\\slash' 'quo\"te' $'tab\\there' $'new\\nline' $'latin\\351';"
                      " do echo x > \"./$n\"; done",
    "writes text that is not UTF-8": "printf 'caf\\351\\n' > latin.txt; echo text > text.txt; printf '\\377\\n' >> README.md",
    "writes such text under odd names": "for n in 'a b.txt' '[a-z]*.txt' 'back\\slash' 'quo\"te' '!bang' '#hash' $'new\\nline' 'ünï';"
                                       " do printf 'caf\\351\\n' > \"./$n\"; done",
    "writes such text under a name that is not": "printf 'caf\\351\\n' > $'latin\\351'",
    "makes links": "ln -s README.md link; ln -s /nowhere outside; rm LICENSE; ln -s README.md LICENSE; rm -r docs; echo file > docs;"
                   "rm CHANGELOG.md; mkdir CHANGELOG.md; echo x > CHANGELOG.md/x",
    "commits": "echo '# fixed' >> README.md; git add -A; git commit -q -m mine; echo '# more' >> README.md; git add -A",
    "switches branches": "git checkout -q -b other; echo '# fixed' >> README.md; git commit -q -a -m mine; git checkout -q --detach; git branch -q -D main; echo x > x.txt",
    "goes back in history": "echo '# fixed' >> README.md; git reset -q --soft HEAD~3; git tag -d $(git tag) > /dev/null",
    "deletes .git": "rm -rf .git; echo '# fixed' >> README.md; echo x > x.txt",
    "replaces .git": "rm -rf .git; git init -q; git add -A; git -c user.name=a -c user.email=a commit -q -m all; echo '# fixed' >> README.md",
    "breaks .git": "rm -rf .git; ln -s /nowhere .git; echo '# fixed' >> README.md",
    "hides files from git": "git update-index --assume-unchanged README.md; git update-index --skip-worktree LICENSE; git rm -q --cached CHANGELOG.md; echo '*' > .git/info/exclude;"
                            "git config core.fileMode false; chmod +x pyproject.toml; echo x | tee -a README.md LICENSE CHANGELOG.md new.txt > /dev/null",
    "marks files with attributes": "echo '*.md -diff merge=ours' > .gitattributes; echo '*.txt diff=none linguist-generated' >> .gitattributes; echo x | tee -a README.md new.txt > /dev/null",
    "leaves a pipe and a socket": "mkfifo pipe; python -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")';"
                                  "echo '# fixed' >> README.md",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_patch_makes_of_a_clean_checkout_what_the_agent_made(warm: Place, agent: Any, tmp_path: Path, change: str) -> None:
    record = solve(warm, tmp_path.name, agent(f"set -e; {CHANGES[change]}"))
    assert record["agent"]["status"] == "completed"
    made = tree(warm.artifacts / "worktrees" / tmp_path.name / ID / "testbed")
    assert made != tree(checkout(warm, tmp_path.name))
    assert made == tree(checkout(warm, tmp_path.name, patch=record["model_patch"]))


def test_no_change_is_an_empty_patch(warm: Place, agent: Any, tmp_path: Path) -> None:
    assert solve(warm, tmp_path.name, agent("touch README.md; git commit -q --allow-empty -m nothing; git rm -q --cached README.md; echo Nothing to do."))["model_patch"] == ""


def test_what_python_builds_and_tests_leave_is_in_no_patch(warm: Place, agent: Any, tmp_path: Path) -> None:
    leaves = """for f in src/textkit/__pycache__/x.pyc old.pyc src/x.egg-info/PKG-INFO src/textkit/fast.so build/lib/x.py .pytest_cache/x .venv/bin/x .coverage a.rej
        do mkdir -p "$(dirname "$f")"; echo x > "$f"; done; : > .gitignore; python -m pytest -q tests > /dev/null; echo x > src/textkit/wanted.py"""
    patch = solve(warm, tmp_path.name, agent(leaves))["model_patch"]
    assert [line for line in patch.splitlines() if line.startswith("diff")] == ["diff --git a/.gitignore b/.gitignore", "diff --git a/src/textkit/wanted.py b/src/textkit/wanted.py"]


@pytest.mark.parametrize("then", ["true", "ln -s {tmp}/outside testbed", "echo x > testbed", "mkdir testbed"])
def test_an_agent_that_deletes_its_whole_worktree_has_deleted_all_files(warm: Place, agent: Any, tmp_path: Path, then: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/private.txt").write_text("private")
    record = solve(warm, tmp_path.name, agent(f'cd ..; rm -rf testbed; {then.replace("{tmp}", str(tmp_path))}'))
    assert record["agent"]["status"] == "completed" and "private" not in record["model_patch"]
    assert tree(checkout(warm, tmp_path.name, patch=record["model_patch"])) == {} and (tmp_path / "outside/private.txt").exists()


def test_a_repository_in_the_worktree_does_not_hide_the_rest(warm: Place, agent: Any, tmp_path: Path) -> None:
    nests = """for f in bare src/textkit full; do mkdir -p $f; git init -q $f; echo x > $f/x.py; done
        git -C full add -A; git -C full -c user.name=a -c user.email=a commit -q -m x; echo x > z.txt; echo '# fixed' >> src/textkit/slug.py"""
    record = solve(warm, tmp_path.name, agent(nests))
    made = tree(checkout(warm, tmp_path.name, patch=record["model_patch"]))
    assert b"z.txt" in made and b"src/textkit/x.py" in made and made[b"src/textkit/slug.py"][1].endswith(b"# fixed\n")


def test_git_of_an_agent_without_git_folder_finds_no_repository_outside(warm: Place, agent: Any, tmp_path: Path) -> None:
    outside = warm.artifacts / "worktrees" / tmp_path.name
    subprocess.run(["git", "init", "-q", str(outside)], check=True)
    record = solve(warm, tmp_path.name, agent("rm -rf .git; echo x > x.txt; git add -A"))
    assert "x.txt" in record["model_patch"] and not (outside / ".git/index").exists()


# each of these makes git run the program `ran`, which says so in a file, when it looks at such a repository
TRAPS = """cat > "$OUTSIDE/ran" <<'END'
#!/bin/sh
echo "$0 $*" >> "${0%/*}/log"; cat
END
chmod +x "$OUTSIDE/ran"; ran="$OUTSIDE/ran"
git config core.fsmonitor "$ran"; git config core.pager "$ran"; git config core.editor "$ran"; git config core.sshCommand "$ran"; git config diff.external "$ran"
for name in add diff read-tree status write-tree; do git config "alias.$name" "!$ran"; done
for key in filter.trap.clean filter.trap.smudge filter.trap.process diff.trap.textconv diff.trap.command merge.trap.driver; do git config $key "$ran"; done
git config filter.trap.required true; git config gpg.program "$ran"; git config core.worktree /; git config core.attributesFile "$OUTSIDE/attributes"
mkdir -p "$OUTSIDE/hooks" .git/hooks
for hook in pre-commit post-index-change post-checkout post-commit reference-transaction; do cp "$ran" "$OUTSIDE/hooks/$hook"; cp "$ran" ".git/hooks/$hook"; done
git config core.hooksPath "$OUTSIDE/hooks"; cp .git/config "$HOME/.gitconfig"; mkdir -p "$HOME/.config/git"; cp .git/config "$HOME/.config/git/config"
for file in .gitattributes src/.gitattributes .git/info/attributes "$OUTSIDE/attributes" "$HOME/.config/git/attributes"; do echo '* filter=trap diff=trap merge=trap' > $file; done
rm -f "$OUTSIDE/log"; """


@pytest.fixture
def trapped(warm: Place, agent: Any, tmp_path: Path) -> dict[str, Any]:
    """The record of an agent that left traps; `log` in the test's folder says that one was sprung."""
    (tmp_path / "home").mkdir()
    return solve(warm, tmp_path.name, agent(f"{TRAPS} echo '# fixed' >> README.md"), EDITED, OUTSIDE=str(tmp_path), HOME=str(tmp_path / "home"))


def test_nothing_that_an_agent_left_is_run_when_its_patch_is_taken(warm: Place, trapped: dict[str, Any], tmp_path: Path) -> None:
    assert "+# fixed" in trapped["model_patch"] and not (tmp_path / "log").exists()
    # the traps are real: git in that worktree runs them
    left = warm.artifacts / "worktrees" / tmp_path.name / EDITED / "testbed"
    subprocess.run(["git", "-C", str(left), "-c", "core.worktree=.", "status"], capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    assert (tmp_path / "log").exists()


def test_nothing_that_an_agent_left_is_run_by_a_later_stage(warm: Place, trapped: dict[str, Any], tmp_path: Path) -> None:
    for stage in ("bin/setup-venv", "bin/make-worktree"):
        warm.run(stage, "--dataset", "sample", "--run", tmp_path.name, EDITED, HOME=str(tmp_path / "home"))
    assert not (tmp_path / "log").exists()


def test_nothing_in_a_submodule_is_run_either(warm: Place, agent: Any, git_repository: Any, tmp_path: Path) -> None:
    part, [inner] = git_repository("part", [{"part.py": "part\n"}])
    whole, _ = git_repository("whole", [{"whole.py": "whole\n"}])
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | {f"GIT_{role}_{key}": "a" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    for words in (["update-index", "--add", "--cacheinfo", f"160000,{inner},part"], ["commit", "-q", "-m", "a part"]):
        subprocess.run(["git", "-C", str(whole), *words], check=True, env=env)
    base = subprocess.run(["git", "-C", str(whole), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    config = {"python": "3", "test_cmd": "true", "log_parser": "parse_log_pytest", "exclude_newer": ROWS[ID]["install_config"]["exclude_newer"]}
    row = ROWS[ID] | {"instance_id": "acme__whole-1", "repo": "acme/whole", "base_commit": base, "install_config": config}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    trap = agent(f"echo ran >> {tmp_path}/log", "trap")
    sets = f"""rmdir part; git -c safe.directory='*' clone -q {part} part; cp -r part other; git init -q new; touch new/x
        for r in part other new; do git -C $r config core.fsmonitor {trap}; done; rm -f {tmp_path}/log; echo '# fixed' >> whole.py"""
    record = solve(warm, tmp_path.name, agent(sets), "acme__whole-1", DATASET=str(tmp_path / "rows.jsonl"), REMOTE=str(whole), timeout=300)
    assert "+# fixed" in record["model_patch"] and "part" not in record["model_patch"] and not (tmp_path / "log").exists()
    subprocess.run(["git", "-C", str(warm.artifacts / "worktrees" / tmp_path.name / "acme__whole-1/testbed/part"), "status"], capture_output=True, env=env)
    assert (tmp_path / "log").exists()


@pytest.mark.parametrize("undoes", ["true", "git checkout -q HEAD -- .", "git checkout -q .", "git stash -q", "git reset -q --hard", "git commit -q -a -m mine", "rm -rf .git"])
def test_an_edit_of_the_spec_is_in_no_patch(warm: Place, agent: Any, tmp_path: Path, undoes: str) -> None:
    assert solve(warm, tmp_path.name, agent(undoes), EDITED)["model_patch"] == ""


@pytest.mark.parametrize("before", ["true", "git checkout -q HEAD -- pyproject.toml", "git reset -q --hard"])
def test_a_line_beside_an_edit_of_the_spec_is_in_the_patch_alone(warm: Place, agent: Any, tmp_path: Path, before: str) -> None:
    edits = f"{before}; sed -i 's/^description = .*/description = \"Other\"/' pyproject.toml; git add -A"
    patch = solve(warm, tmp_path.name, agent(edits), EDITED)["model_patch"]
    changed = [line for line in patch.splitlines() if line.startswith(("+", "-")) and not line.startswith(("+++", "---"))]
    assert changed == ['-description = "Small, dependency-free helpers for plain text"', '+description = "Other"']
    made = warm.run("bin/setup-venv", input=warm.run("bin/make-worktree", "--dataset", "sample", "--run", f"{tmp_path.name}-clean", EDITED).stdout)
    subprocess.run(["git", "-C", json.loads(made.stdout)["worktree"], "apply", "--check", "-"], input=patch, check=True, text=True)


WRONG_COUNTS = "sed -E 's/^@@ -([0-9]+),[0-9]+ .([0-9]+),[0-9]+ @@/@@ -\\1,99 +\\2,77 @@/'"
PRINTS = {
    "in a fence": "echo 'Here it is:'; echo '```diff'; cat $D; echo '```'; echo 'That is all.'",
    "in a fence after another": "printf '```python\\nprint(1)\\n```\\nand\\n```\\n'; cat $D; echo '```'",
    "bare": "echo 'Here it is:'; echo; cat $D",
    "bare with words after it": "cat $D; echo; echo 'That is all.'",
    "without git's header": "sed 1,2d $D",
    "with wrong line counts": f"echo '```diff'; {WRONG_COUNTS} $D; echo '```'",
    "bare with wrong line counts": f"{WRONG_COUNTS} $D",
    "without prefixes": "git apply $D; git diff --no-prefix; git checkout -q .",
    "with CRLF": "sed 's/$/\\r/' $D",
    "into patch.diff": 'cat $D > "$AGENT_OUT/patch.diff"',
}


@pytest.mark.parametrize("how", PRINTS)
def test_a_printed_diff_counts_as_a_change(warm: Place, agent: Any, tmp_path: Path, how: str) -> None:
    prints = f"set -e; D={tmp_path}/d; sed -i '2i fixed' LICENSE; echo more >> README.md; git diff > $D; git checkout -q .; {PRINTS[how]}"
    record = solve(warm, tmp_path.name, agent(prints))
    clean = checkout(warm, tmp_path.name)
    license, readme = ((clean / name).read_text() for name in ("LICENSE", "README.md"))
    made = checkout(warm, tmp_path.name, patch=record["model_patch"])
    assert (made / "LICENSE").read_text() == license.replace("\n", "\nfixed\n", 1) and (made / "README.md").read_text() == f"{readme}more\n"


def test_a_printed_diff_does_not_count_beside_an_edit(warm: Place, agent: Any, tmp_path: Path) -> None:
    prints = "echo edited >> README.md; git diff | sed s/edited/printed/"
    patch = solve(warm, tmp_path.name, agent(prints))["model_patch"]
    assert "+edited" in patch and "printed" not in patch


def test_a_printed_diff_that_does_not_apply_is_handed_on(warm: Place, agent: Any, tmp_path: Path) -> None:
    patch = "diff --git a/none.py b/none.py\n--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-old\n+new\n"
    assert solve(warm, tmp_path.name, agent(f"printf '%s' '{patch}'"))["model_patch"] == patch


def test_a_long_log_of_dashes_is_no_diff_and_costs_no_time(warm: Place, agent: Any, tmp_path: Path) -> None:
    record = solve(warm, tmp_path.name, agent("seq -f '--- step %.0f of the log' 40000; echo done"), timeout=12)
    assert record["agent"]["status"] == "completed" and record["model_patch"] == ""
