# Shared by up.sh and down.sh: where the cluster keeps its state, and which of its daemons live.
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
STATE=${EXCA_SLURM_STATE:-/tmp/exca-slurm}
export SLURM_CONF=$STATE/etc/slurm.conf
DEFAULT_CONF=/etc/slurm/slurm.conf  # where Slurm's commands look when SLURM_CONF is unset
PORT=${EXCA_SLURM_PORT:-26817}  # the first of eight
NODES=(n1 n2 n3 n4)

runs() { # pid, name: that process runs; a zombie, which PID 1 may be slow to reap, does not
  [ "$(awk '/^Name:/{n=$2} /^State:/{s=$2} END{if (s != "Z") print n}' "/proc/$1/status" 2> /dev/null)" = "$2" ]
}

pid_of() { # pid file without .pid, name: print the pid of that daemon if it runs
  local pid
  pid=$(cat "$STATE/run/$1.pid" 2> /dev/null) && [ -n "$pid" ] && runs "$pid" "$2" && echo "$pid"
}
