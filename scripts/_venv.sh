# Makes .venv and installs kdscale with the pinned versions, unless that is done already.
# Sourced by quickstart and test, with the repository's root as working directory.

oldest="3.11"

find_python() {
    for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
        if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

make_venv() {
    if [ ! -x .venv/bin/python ]; then
        local python
        python=$(find_python)
        if [ -z "$python" ]; then
            echo "kdscale needs Python $oldest or newer, but found" \
                "$(python3 --version 2>/dev/null || echo none). Install it, or name one:" \
                "PYTHON=/path/to/python $0" >&2
            exit 2
        fi
        if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            echo "$python has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 2
        fi
        rm -rf .venv
        "$python" -m venv .venv
    fi
    local wanted
    wanted=$(cat pyproject.toml constraints.txt | cksum)
    if [ "$(cat .venv/kdscale-installed 2>/dev/null)" != "$wanted" ]; then
        echo "installing kdscale into .venv (torch is large: some minutes the first time)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            --constraint constraints.txt --editable '.[dev]'
        echo "$wanted" > .venv/kdscale-installed
    fi
}
