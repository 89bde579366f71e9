#!/usr/bin/env bash
# Run Slurm tests on the Slurm of the next Debian, which lives in a folder of its own: root and Debian only.
# Usage: scripts/slurm/newer.sh [ARGUMENTS OF PYTEST]. EXCA_SLURM_NEWER names the folder, some 900 MB, which is kept.
# The cluster has ports and a state of its own, and ends with the tests: a cluster of up.sh goes on beside it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
R=${EXCA_SLURM_NEWER:-/var/tmp/exca-slurm-newer}
SUITE=trixie PACKAGES=munge,slurmctld,slurmd,slurm-client,slurmdbd,mariadb-server-core,procps,git
LIBRARIES=libffi8,libsqlite3-0,libssl3t64,libreadline8t64,libbz2-1.0,liblzma5,zlib1g # of an interpreter from elsewhere
MIRROR=${EXCA_DEBIAN_MIRROR:-$(awk '/^URIs:/{print $2; exit} /^deb /{print $2; exit}' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2> /dev/null)}
inside() { chroot "$R" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME="$HOME" \
  EXCA_SLURM_STATE=/tmp/exca-slurm-newer EXCA_SLURM_PORT=28900 SLURM_CONF=/tmp/exca-slurm-newer/etc/slurm.conf \
  LD_LIBRARY_PATH=/opt/lib EXCA_REQUIRE_SLURM=1 "$@"; }

[ "$(id -u)" = 0 ] || { echo "slurm-newer: not tried: it needs root" >&2; exit 3; }
command -v debootstrap > /dev/null || { echo "slurm-newer: not tried: apt install debootstrap" >&2; exit 3; }
if [ ! -e "$R/.ready" ]; then
  echo "slurm-newer: making $R"
  script=/usr/share/debootstrap/scripts
  [ -e $script/$SUITE ] || ln -s sid $script/$SUITE
  debootstrap --variant=minbase $SUITE "$R" "$MIRROR" > "$R.log"
  printf '#!/bin/sh\nexit 101\n' > "$R/usr/sbin/policy-rc.d" # packages start no daemons
  chmod 755 "$R/usr/sbin/policy-rc.d"
  cp /etc/resolv.conf /etc/hosts "$R/etc/"
  inside sh -c "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(tr , ' ' <<< "$PACKAGES,$LIBRARIES")" >> "$R.log" 2>&1
  # slurmdbd 24.11 cannot read a row through libmariadb 11.8.9 (error 5027, "allowed number of columns (=0)"): that of
  # this Debian is of the same interface
  mkdir -p "$R/opt/lib"
  (cd "$(mktemp -d)" && apt-get download -qq libmariadb3 && dpkg-deb -x libmariadb3_*.deb . && cp usr/lib/*/libmariadb.so.3 "$R/opt/lib/")
  touch "$R/.ready"
fi

mounts=()
end() {
  inside "$root/scripts/slurm/down.sh" || true
  for each in $(printf '%s\n' "${mounts[@]}" | tac); do umount --lazy "$each"; done
}
trap end EXIT
on() { # source, place: mount a folder of this machine
  mkdir -p "$R$2"
  mountpoint -q "$R$2" || { mount --bind "$1" "$R$2" && mounts+=("$R$2"); }
}
interpreter=$(readlink -f "$root/.venv/bin/python")
on /proc /proc; on /sys /sys; on /dev /dev; on /dev/shm /dev/shm; on /tmp /tmp; on "$root" "$root"
[[ $interpreter = /usr/* ]] && { echo "slurm-newer: .venv has to be built on a Python that is not Debian's" >&2; exit 3; }
on "$(dirname "$(dirname "$interpreter")")" "$(dirname "$(dirname "$interpreter")")"
inside "$root/scripts/slurm/up.sh"
[ $# -gt 0 ] || set -- tests/jobs tests/claims/test_claims_slurm.py tests/task tests/map tests/test_submit.py
cd "$root"
inside sh -c 'cd "$0" && exec .venv/bin/python -m pytest -m "slurm and not long and not torture" --numprocesses 2 "$@"' "$root" "$@"
