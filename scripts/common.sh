# What the scripts here share; sourced by them, in the repository's root. Gives them a `scratch` directory, which
# the one that sources this removes.

scratch=$(mktemp -d)

fail() { printf '\n%s: %s\n' "$0" "$1" >&2; exit 1; }

is_root() { [ "$(id -u)" = 0 ]; }

install_packages() { # what for, packages...
  local what=$1; shift
  command -v apt-get >/dev/null || fail "$what is missing; install it (Debian calls it: $*)"
  is_root || fail "$what is missing; install it: sudo apt-get install -y $*"
  echo "installing $what: apt-get install -y $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$scratch/apt.log" 2>&1 ||
    { tail -20 "$scratch/apt.log" >&2; fail "$what can't be installed; try: apt-get install -y $*"; }
}

need_rust() {
  if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
  fi
  command -v cargo >/dev/null || fail "Rust is missing; install it: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
  command -v cc >/dev/null || install_packages "a C compiler" build-essential
}

# What the tools that build the dashboard need.
NODE=22
has_node() { command -v npm >/dev/null && node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }

need_node() { # Debian's npm brings a newer Node where its own is too old
  local kept=${XDG_CACHE_HOME:-$HOME/.cache}/streamgate-node
  PATH=$kept/node_modules/node/bin:$PATH
  has_node && return
  command -v npm >/dev/null || install_packages "Node" nodejs npm
  has_node && return
  echo "installing Node $NODE for the tests, in $kept"
  npm install --prefix "$kept" --no-audit --no-fund "node@$NODE" >"$scratch/npm.log" 2>&1 && hash -r && has_node ||
    { tail -20 "$scratch/npm.log" >&2; fail "Node is older than 20.19; install a newer one: https://nodejs.org/en/download"; }
}

need_chromium() { # sets STREAMGATE_TEST_CHROMIUM
  [ -z "${STREAMGATE_TEST_CHROMIUM:-}" ] || return 0
  command -v chromium >/dev/null || install_packages Chromium chromium
  STREAMGATE_TEST_CHROMIUM=$(command -v chromium) || fail "chromium was installed, but is not found"
  export STREAMGATE_TEST_CHROMIUM
}

install_dashboard() { # what builds and tests it, as its lock file says
  PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm --prefix dashboard ci --no-audit --no-fund >"$scratch/npm.log" 2>&1 ||
    { tail -20 "$scratch/npm.log" >&2; fail "the dashboard's packages can't be installed; try: npm --prefix dashboard ci"; }
}

find_python() { # sets python: 3.11 or newer, and able to make environments
  for python in python3 /usr/bin/python3 python3.{14,13,12,11}; do
    if "$python" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null; then return 0; fi
  done
  return 1
}

need_venv() {
  find_python && return
  install_packages "Python's venv" python3-venv
  find_python || fail "Python is older than 3.11, which this needs; install a newer one"
}

end_agents() { # directory: ends the agents that a gateway with its data there left at work
  local process
  for process in /proc/[0-9]*; do
    if grep -qsaF -- "$1" "$process/cmdline" "$process/environ"; then kill -KILL "${process#/proc/}" 2>/dev/null || true; fi
  done
}
