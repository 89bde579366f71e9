#!/usr/bin/env bash
# Bring up a real Slurm cluster on this one Debian machine, for the tests and the demo; see README.md.
# Safe to run again at any time. Exit status: 0 up, 3 not possible on this machine (the last line says why),
# 1 something went wrong.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
export DEBIAN_FRONTEND=noninteractive
# mariadb-server-core is enough for slurmdbd, and mariadb-server would upgrade perl.
PACKAGES=(munge slurmctld slurmd slurm-client slurmdbd mariadb-server-core)

say() { printf 'slurm: %s\n' "$*"; }
impossible() { printf 'slurm: not possible here: %s\n' "$*" >&2; exit 3; }
fail() {
  grep -hE 'error|fatal' "$STATE"/log/*.log 2> /dev/null | sort | tail -n 8 >&2 || true
  printf 'slurm: failed: %s\n' "$*" >&2
  exit 1
}
wait_for() { # seconds, what, command...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { "$@" >&2 || true; fail "$what: not ready in time, see $STATE/log"; }
    sleep 0.1
  done
}

installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}\n' "${PACKAGES[@]}" 2> /dev/null | grep -cx installed)" = "${#PACKAGES[@]}" ]
}

install_packages() {
  command -v apt-get > /dev/null || impossible "the packages come from Debian, and there is no apt-get"
  say "installing ${PACKAGES[*]}"
  # A policy-rc.d that answers 101 keeps the packages from starting daemons of their own.
  local policy=/usr/sbin/policy-rc.d made_policy=0 status=0
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    made_policy=1
  fi
  { apt-get update && apt-get install -y --no-install-recommends "${PACKAGES[@]}"; } > "$STATE/log/apt.log" 2>&1 || status=$?
  [ $made_policy = 0 ] || rm -f $policy
  [ $status = 0 ] || impossible "apt-get could not install ${PACKAGES[*]} (see $STATE/log/apt.log)"
}

resolve_host_to_loopback() {
  local name first
  for name in "$(hostname)" "$(hostname -s)"; do
    first=$(getent ahostsv4 "$name" | awk 'NR==1{print $1}' || true)
    if [[ $first != 127.* ]]; then
      # Written in place: in a container it may be a bind mount.
      printf '%s\n' "$(printf '127.0.0.1 %s # exca test cluster\n' "$name"; cat /etc/hosts)" > /etc/hosts
    fi
  done
}

lay_out_folders() {
  local i
  mkdir -p "$STATE"/{etc,controller,dev} "${NODES[@]/#/$STATE/spool/}"
  chmod 755 "$STATE" "$STATE"/{etc,run,log,controller,dev}
  for i in {0..7}; do # stand-ins for the device files of GPUs: copies of /dev/null
    [ -e "$STATE/dev/gpu$i" ] || mknod -m 666 "$STATE/dev/gpu$i" c 1 3 2> /dev/null || touch "$STATE/dev/gpu$i"
  done
}

CONFIGURATION=(slurm.conf gres.conf cgroup.conf slurmdbd.conf)

render() { # name: print that file for this machine
  local cgroup_plugin=disabled
  # Before 24.05 there is no "disabled", but cgroup/v1 does nothing until it is asked to.
  [[ ! $(slurmd -V) =~ \ 2[0-3]\. ]] || cgroup_plugin=cgroup/v1
  local edits=(-e "s|@STATE@|$STATE|g" -e "s|@HOST@|$(hostname -s)|g" -e "s|@CGROUP_PLUGIN@|$cgroup_plugin|g" -e "s|@PORT@|$PORT|g") n setting
  for n in 2 4 5 6 7; do edits+=(-e "s|@PORT+$n@|$((PORT + n))|g"); done
  if [ "$1" = slurm.conf ]; then
    for setting in ${EXCA_SLURM_SET:-}; do edits+=(-e "/^${setting%%=*}=/d" -e "/^ClusterName=/a $setting"); done
  fi
  sed "${edits[@]}" "$here/conf/$1"
}

configuration_holds() {
  local name
  for name in "${CONFIGURATION[@]}"; do
    render "$name" | cmp -s - "$STATE/etc/$name" || return 1
  done
}

write_configuration() {
  local name
  if pid_of slurmctld slurmctld > /dev/null; then
    [ -z "$(timeout 10 squeue -h)" ] || {
      say "the configuration changed, and jobs are in the queue: wait for them, or run $here/down.sh" >&2
      exit 1
    }
    say "the configuration changed: starting again"
    "$here/down.sh"
  fi
  for name in "${CONFIGURATION[@]}"; do
    install -m 600 /dev/null "$STATE/etc/$name" # slurmdbd insists on that for its file
    render "$name" > "$STATE/etc/$name"
    [ "$name" = slurmdbd.conf ] || chmod 644 "$STATE/etc/$name"
  done
}

become_default() { # commands find the cluster without SLURM_CONF, unless the machine belongs to another one
  if [ -e $DEFAULT_CONF ] && [ "$(readlink $DEFAULT_CONF)" != "$SLURM_CONF" ]; then
    say "$DEFAULT_CONF belongs to another cluster and stays: use 'export SLURM_CONF=$SLURM_CONF'"
  else
    mkdir -p "$(dirname $DEFAULT_CONF)"
    ln -sfn "$SLURM_CONF" $DEFAULT_CONF
  fi
}

start_munged() {
  ! munge -n 2> /dev/null | unmunge > /dev/null 2>&1 || return 0 # one a machine: may be another's
  [ -s /etc/munge/munge.key ] || runuser -u munge -- /usr/sbin/mungekey -c
  install -d -o munge -g munge -m 755 /run/munge
  runuser -u munge -- /usr/sbin/munged 9>&- || fail "munged does not start"
  wait_for 10 munged sh -c 'munge -n | unmunge'
  cp /run/munge/munged.pid "$STATE/run/munged.pid" # the copy says that it is ours to stop
}

start_database() {
  local db=$STATE/database
  ! pid_of mariadbd mariadbd > /dev/null || return 0
  if [ ! -e "$db/.ready" ]; then
    rm -rf "$db"
    install -d -m 700 "$db"
    # By hand: mariadb-install-db needs a program of mariadb-client-core.
    { printf 'CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n'
      cat /usr/share/mysql/mysql_system_tables.sql 2> /dev/null || cat /usr/share/mariadb/mariadb_system_tables.sql
    } | mariadbd --no-defaults --bootstrap --user=root --datadir="$db" --innodb-log-file-size=16M \
      > "$STATE/log/mariadb-bootstrap.log" 2>&1 || fail "mariadbd --bootstrap"
    touch "$db/.ready"
  fi
  rm -f "$STATE/log/mariadbd.log" # or an old "ready" would be taken for the new one
  # No TCP port and no passwords: a socket in a folder of mode 700 instead.
  setsid mariadbd --no-defaults --user=root --datadir="$db" --socket="$db/mysqld.sock" \
    --pid-file="$STATE/run/mariadbd.pid" --skip-networking --skip-grant-tables --skip-name-resolve \
    --innodb-buffer-pool-size=128M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 < /dev/null > "$STATE/log/mariadbd.log" 2>&1 9>&- &
  wait_for 30 mariadbd grep -q 'ready for connections' "$STATE/log/mariadbd.log"
}

associate_users() { # where limits are enforced, a user without an association may submit nothing
  local missing
  missing=$(comm -23 <(getent passwd | awk -F: '$3 == 0 || ($3 >= 1000 && $3 < 60000){print $1}' | sort -u) \
    <(sacctmgr -nP list associations cluster=exca format=user | sort -u) | paste -sd,)
  [ -z "$missing" ] || sacctmgr -iQ add user name="$missing" cluster=exca account=root > /dev/null \
    || fail "sacctmgr add user $missing"
}

start_slurm() {
  local node
  if ! pid_of slurmdbd slurmdbd > /dev/null; then
    MYSQL_UNIX_PORT=$STATE/database/mysqld.sock slurmdbd 9>&- || fail "slurmdbd does not start"
    wait_for 30 slurmdbd sacctmgr -n list cluster
  fi
  # slurmctld enforces limits from its first moment on, and needs to know its cluster and users for that
  [ -n "$(sacctmgr -nP list cluster exca)" ] || sacctmgr -iQ add cluster exca > /dev/null || fail "sacctmgr add cluster"
  associate_users
  if ! pid_of slurmctld slurmctld > /dev/null; then
    slurmctld 9>&- || fail "slurmctld does not start"
    wait_for 30 slurmctld sh -c 'scontrol ping | grep -q "is UP"'
  fi
  for node in "${NODES[@]}"; do
    pid_of "slurmd.$node" slurmd > /dev/null || slurmd -N "$node" 9>&- || fail "slurmd of $node does not start"
  done
}

nodes_up() { # whole words: "idle*" would be a node that does not answer
  [ "$(sinfo -h -N -p debug -o '%N %T' | awk '$2 ~ /^(idle|mixed|allocated|completing)$/{print $1}' | sort -u | wc -l)" = "${#NODES[@]}" ]
}

check() {
  local bad
  # A node that was drained or down stays so over a restart.
  bad=$(sinfo -h -N -p debug -o '%N %T' | awk '$2 ~ /drain|down|fail|inval/{print $1}' | sort -u | paste -sd,)
  [ -z "$bad" ] || scontrol update nodename="$bad" state=resume || true
  wait_for 30 nodes nodes_up
  timeout 60 srun -n1 --mem=16 true || [ -n "$(squeue -h -t R)" ] || fail "srun true"
}

if [ "$(id -u)" != 0 ]; then
  if [[ $(timeout 10 scontrol show config 2> /dev/null) =~ ClusterName\ *=\ exca ]] && nodes_up; then
    say "up already"
    exit 0
  fi
  impossible "starting Slurm's daemons needs root"
fi
mkdir -p "$STATE"/{log,run}
exec 9> "$STATE/.lock"
flock 9 # one run at a time; the daemons do not inherit it (9>&-)
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR # nothing ends silently
started=$SECONDS
installed || install_packages
if [ "${EXCA_SLURM_FRESH:-0}" = 1 ]; then
  "$here/down.sh"
  rm -rf "$STATE"/{controller,database,spool,log/*}
fi
resolve_host_to_loopback
lay_out_folders
configuration_holds || write_configuration
become_default
start_munged
start_database
start_slurm
check
say "up after $((SECONDS - started)) s: $(sinfo -h -o '%R %D' | tr '\n' ';' | sed 's/;$//; s/;/, /g') nodes; logs in $STATE/log; stop with $here/down.sh"
