#!/bin/sh
# Checks the system tools, makes .venv with what requirements.txt pins. Safe to rerun; does nothing when all is there.
# example: ./bootstrap.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd -P)
cd "$here"
say() { echo "bootstrap: $*" >&2; }

case $here in
  *[[:space:]:]*) say "the toolkit's path '$here' holds a space or a colon (move it)"; exit 1 ;;
esac

howto() { # howto DEBIAN FEDORA MACOS CONDA
  say "  Debian: apt-get install $1   Fedora: dnf install $2   macOS: brew install $3   conda: conda install -c conda-forge $4"
}

missing=0
need() { # need TOOL PACKAGES...
  command -v "$1" >/dev/null 2>&1 && return
  missing=1
  say "no '$1' on PATH"
  shift
  howto "$@"
}
need git git git git git
need make make make make make
need parallel parallel parallel parallel parallel
need jq jq jq jq jq
need patch patch patch gpatch patch
need bash bash bash bash bash
if command -v make >/dev/null 2>&1; then
  version=$(make --version | sed -n '1s/^GNU Make \([0-9]*\.[0-9]*\).*/\1/p')
  case ${version:-none} in
    none | [0-3].* | 4.[01])
      missing=1
      say "make is '${version:-not GNU make}', and GNU make 4.2 or newer is needed (macOS: its 'gmake')"
      howto make make make make ;;
  esac
fi
command -v cc >/dev/null 2>&1 || {
  say "note: no C compiler 'cc' (projects with C extensions, two tasks of the sample among them, cannot be built)"
  howto build-essential gcc "gcc (or xcode-select --install)" c-compiler
}
[ "$missing" = 0 ] || exit 1

# parallel asks to be cited until told that one knows; it would do so inside pipelines
[ -e "$HOME/.parallel/will-cite" ] || { mkdir -p "$HOME/.parallel" && : >"$HOME/.parallel/will-cite"; } 2>/dev/null || true

want=$(cat requirements.txt bootstrap.sh | cksum)
[ -x .venv/bin/python ] && [ "$(cat .venv/bootstrapped 2>/dev/null)" = "$want" ] && exit 0

python=
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 \
  "$HOME"/.pyenv/versions/3.1[1-3].*/bin/python "$HOME"/.local/share/uv/python/cpython-3.1[1-3]*/bin/python3; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
  "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
  python=$candidate
  break
done
if [ -z "$python" ] && ! command -v uv >/dev/null 2>&1; then
  say "no Python 3.11 or newer with venv (set PYTHON=/path/to/python to name one)"
  howto "python3 python3-venv python3-dev" "python3 python3-devel" python@3.13 python=3.13
  exit 1
fi

say "making .venv (once; under a minute)"
rm -rf .venv
if command -v uv >/dev/null 2>&1; then
  uv venv --quiet --python "${python:-3.12}" .venv
  uv pip install --quiet --python .venv/bin/python -r requirements.txt
else
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"
  .venv/bin/uv pip install --quiet --python .venv/bin/python -r requirements.txt
fi
# a path relative to site-packages, so that the folder may be moved
for site in .venv/lib/python3.*/site-packages; do
  echo ../../../../lib >"$site/swerun.pth"
  break
done
.venv/bin/python -I -m compileall -q lib .venv/lib/python3.*/site-packages/swebench/harness >/dev/null 2>&1 || true
.venv/bin/python -I -c 'import swerun.paths, orjson, pygit2, jq'
echo "$want" >.venv/bootstrapped
say "done"
