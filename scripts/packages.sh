# shellcheck shell=bash
# Sourced by llorch-remote: installs what llorch needs and this system lacks, and nothing else (docs/dependencies.md).

# An entry is COMMAND:PACKAGE, or a package that is looked up by its name, with alternatives after '|'.
apt_build=(g++:g++ cmake:cmake ninja:ninja-build ccache:ccache pkg-config:pkg-config libboost-dev nlohmann-json3-dev
  libcli11-dev libspdlog-dev libfmt-dev libpcre2-dev libutf8proc-dev libxxhash-dev
  "libcurl4-openssl-dev|libcurl4-gnutls-dev")
apt_test=(libgtest-dev libgmock-dev python3:python3)
apt_lint=(clang-format-14:clang-format-14 clang-tidy-14:clang-tidy-14)
brew_build=(cmake:cmake ninja:ninja ccache:ccache pkg-config:pkgconf boost nlohmann-json cli11 spdlog fmt pcre2 utf8proc xxhash)
brew_test=(googletest python3:python3)

packages_fail() {
  printf 'llorch-remote: %s\n' "$1" >&2
  exit 1
}

# missing_packages IS_INSTALLED ENTRY...: the packages that are not there, one a line. IS_INSTALLED prints those of its
# arguments that are installed, in one look at the package database.
missing_packages() {
  local look=$1 entry name found names=() installed=
  shift
  for entry in "$@"; do
    [[ $entry == *:* ]] && continue
    for name in ${entry//|/ }; do names+=("$name"); done
  done
  [[ ${#names[@]} == 0 ]] || installed=$("$look" "${names[@]}")
  for entry in "$@"; do
    if [[ $entry == *:* ]]; then
      command -v "${entry%%:*}" >/dev/null || printf '%s\n' "${entry#*:}"
      continue
    fi
    found=
    for name in ${entry//|/ }; do
      if grep -qxF "$name" <<<"$installed"; then found=1; fi
    done
    [[ $found ]] || printf '%s\n' "${entry%%|*}"
  done
}

apt_installed() { dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/ installed$//p'; }
brew_installed() { brew list --formula -1; }
has_apt() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

apt_get() { ${sudo:+"$sudo"} env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

apt_install() {
  local sudo=
  printf '== Installing: %s\n' "$*"
  if [[ $(id -u) != 0 ]]; then
    sudo=$(command -v sudo) ||
      packages_fail "installing needs root or sudo; as root, run: apt-get update && apt-get install --no-install-recommends $*"
  fi
  apt_get update || packages_fail "apt-get update failed, see above. Is there a network?"
  apt_get install -y --no-install-recommends "$@" ||
    packages_fail "apt-get could not install $*, see above. Debian 12 and Ubuntu 22.04 have all of them."
}

# ensure_packages build|test
ensure_packages() {
  local missing wanted
  if has_apt; then
    wanted=("${apt_build[@]}")
    [[ $1 == build ]] || wanted+=("${apt_test[@]}")
    # Releases after these have dropped version 14; find_clang_format and llorch-remote know what to do then.
    if [[ $1 == test ]] && grep -qE '^VERSION_CODENAME=(bookworm|jammy|noble)' /etc/os-release; then
      wanted+=("${apt_lint[@]}")
    fi
    missing=$(missing_packages apt_installed "${wanted[@]}")
    # shellcheck disable=SC2086  # one word is one package
    [[ -z $missing ]] || apt_install $missing
  elif command -v brew >/dev/null; then
    wanted=("${brew_build[@]}")
    [[ $1 == build ]] || wanted+=("${brew_test[@]}")
    missing=$(missing_packages brew_installed "${wanted[@]}")
    # shellcheck disable=SC2086
    [[ -z $missing ]] || brew install $missing || packages_fail "brew could not install $missing, see above."
  elif [[ $(uname) == Darwin ]]; then
    packages_fail "Homebrew is missing: install it from https://brew.sh, then run this again."
  else
    printf '== Neither apt nor Homebrew: building with the libraries of docs/dependencies.md that are installed\n'
  fi
}

# Prints the pinned clang-format; where the system's packages lack it, it comes from PyPI into FOLDER.
find_clang_format() {
  local folder=$1
  if command -v clang-format-14; then return; fi
  if [[ ! -x $folder/bin/clang-format ]]; then
    { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet clang-format==14.0.6; } >&2 ||
      packages_fail "clang-format 14 could not be installed: python3 needs its venv module (python3-venv) and a network."
  fi
  printf '%s\n' "$folder/bin/clang-format"
}

# The CUDA toolkit is large and has a licence of its own, and what Debian 12 and Ubuntu have of it is too old: it is asked
# for, never installed.
ensure_nvcc() {
  local nvcc
  nvcc=$(PATH=$PATH:/usr/local/cuda/bin:/opt/cuda/bin command -v nvcc) ||
    packages_fail "the cuda backend needs nvcc of the CUDA toolkit, 12.4 or newer, which this script does not install: see https://developer.nvidia.com/cuda-downloads (to build, the toolkit alone is enough; a driver and a GPU are needed to run)"
  printf '== CUDA toolkit: %s\n' "$nvcc"
}
