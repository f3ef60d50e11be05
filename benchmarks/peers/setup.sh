#!/bin/sh
# Environments of the peers in DIR: DIR/mmseg/bin/python, smp and panopticapi alike, as the scripts of benchmarks/ want them.
# usage: benchmarks/peers/setup.sh DIR [PYTHON]        (uv where it is installed, else venv and pip)
set -eu
[ $# -ge 1 ] || { sed -n 2,3p "$0" >&2; exit 2; }
dir=$1
python=${2:-python3}

make() { # name, packages
    name=$1
    shift
    if command -v uv >/dev/null; then
        [ -x "$dir/$name/bin/python" ] || uv venv --quiet --python "$python" "$dir/$name"
        uv pip install --quiet --python "$dir/$name/bin/python" "$@"
    else
        [ -x "$dir/$name/bin/python" ] || "$python" -m venv "$dir/$name"
        "$dir/$name/bin/python" -m pip install --quiet "$@"
    fi
    echo "$dir/$name/bin/python"
}

mkdir -p "$dir"
make mmseg torch torchvision mmengine==0.10.7 mmcv-lite==2.2.0 mmsegmentation==1.2.2 ftfy regex setuptools
make smp torch torchvision segmentation-models-pytorch==0.6.0
make panopticapi panopticapi-lite==0.2.0
