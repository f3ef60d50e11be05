#!/usr/bin/env bash
# Runs the tests with the lowest and the newest versions that pyproject.toml admits, each in an environment of its own
# under .matrix/, with the interpreters at hand (python3.X on the path, or pyenv's).
#
#   tests/matrix.sh [lowest|newest] [arguments of pytest]      e.g.: tests/matrix.sh lowest -m "not slow" -n 2
#
# The lowest: every requirement, and every extra that is tested, at its lower bound, on the oldest Python that has
# wheels of them all. The newest: whatever the registry has, on the newest Python. torch is a build of several GB each.
set -euo pipefail
cd "$(dirname "$0")/.."

interpreter() { # the first of the versions of Python that runs
    local version path
    for version in "$@"; do
        for path in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
            if "$path" -c "import sys; assert '%d.%d' % sys.version_info[:2] == '$version'" 2>/dev/null; then
                "$path" -c "import sys; print(sys.executable)"
                return
            fi
        done
    done
    echo "none of the versions $* of Python is at hand" >&2
    return 1
}

extras=coco,demo,export,fast

environment() { # NAME RESOLUTION PYTHON
    local bin=.matrix/$1/bin
    if [ ! -e ".matrix/$1/.ready" ] || [ pyproject.toml -nt ".matrix/$1/.ready" ]; then
        rm -rf ".matrix/$1"
        "$3" -m venv ".matrix/$1"
        "$bin/python" -m pip install --quiet --upgrade uv
        "$bin/uv" pip install --quiet --python "$bin/python" --resolution "$2" --editable ".[$extras]" --group dev
        touch ".matrix/$1/.ready"
    fi
}

run() { # NAME [ARGUMENTS]
    local name=$1 bin=.matrix/$1/bin
    shift
    echo "== $name: $("$bin/python" -V), $("$bin/uv" pip list --quiet --python "$bin/python" --format freeze |
        grep -E '^(torch|torchvision|timm|numpy|opencv-python-headless|pydantic|tyro|faster-coco-eval|openvino|onnxruntime)==' |
        tr '\n' ' ')"
    "$bin/python" -m pytest "$@"
}

names=(lowest newest)
case ${1-} in lowest | newest) names=("$1") && shift ;; esac
status=0
for name in "${names[@]}"; do
    case $name in
        lowest) environment lowest lowest-direct "$(interpreter 3.11 3.12 3.13)" ;;
        newest) environment newest highest "$(interpreter 3.13 3.12 3.11)" ;;
    esac
    run "$name" "$@" || status=1
done
exit $status
