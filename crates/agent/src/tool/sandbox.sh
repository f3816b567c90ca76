# The walls of the `shell` tool. Runs as the first process of new user, mount, process, network and
# IPC namespaces, so everything in there ends with it, and does four things: it builds a small tree of
# read-only folders, makes it the root, says on standard output that the walls stand (with a word that
# the command cannot know beforehand), and runs the command without any capability.
#
# sh sandbox.sh MOUNT_POINT ROOT WRITE NETWORK WORD SCRATCH_BYTES PROCESSES DATA_BYTES CPU_SECONDS
#               FILE_BYTES WALL_SECONDS COMMAND
set -eu
new=$1 root=$2 write=$3 network=$4 word=$5 scratch=$6 processes=$7 data=$8 cpu=$9
shift 9
file=$1 wall=$2 command=$3

mount -t tmpfs -o mode=755,size=4m,nosuid,nodev sandbox "$new"
cd "$new"
mkdir old proc dev etc tmp work
for folder in usr bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$folder" ]; then
    ln -s "$(readlink "/$folder")" "$folder"
  elif [ -d "/$folder" ]; then
    mkdir "$folder"
    mount --rbind "/$folder" "$folder"
  fi
done
known='alternatives ld.so.cache localtime ssl/certs'
if [ "$network" = yes ]; then known="$known resolv.conf hosts nsswitch.conf"; fi
for path in $known; do
  [ -e "/etc/$path" ] || continue
  mkdir -p "etc/$(dirname "$path")"
  if [ -d "/etc/$path" ]; then mkdir "etc/$path"; else : >"etc/$path"; fi
  mount --rbind "/etc/$path" "etc/$path"
done
echo 'sandbox:x:0:0::/tmp:/bin/sh' >etc/passwd
echo 'sandbox:x:0:' >etc/group
for device in null zero full random urandom; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
if [ -n "$root" ]; then mount --rbind "$root" work; fi
# All that came along is made read-only, what is mounted further down included; each keeps the other
# options it has, for they may not be taken away.
while read -r _ _ _ _ point options _; do
  point=$(printf '%b' "$point")
  kept=${options#r?}
  case $point in
  "$new"/dev/*) ;;
  "$new"/work | "$new"/work/*)
    if [ "$write" = yes ]; then kept=${options%%,*}$kept; else kept=ro$kept; fi
    mount -o "remount,bind,nosuid,nodev,$kept" "$point"
    ;;
  "$new"/*) mount -o "remount,bind,nosuid,nodev,ro$kept" "$point" ;;
  esac
done </proc/self/mountinfo
mount -t tmpfs -o "mode=1777,size=$scratch,nosuid,nodev" scratch tmp
# Read-only, because who owns the machine's settings outside owns them in here too.
mount -t proc -o ro,nosuid,nodev,noexec proc proc
# No namespaces within, where the command would have capabilities again.
echo 0 >/proc/sys/user/max_user_namespaces
# A limit on processes does not count for the machine's root; one on their numbers does, where a
# namespace has its own.
read -r _ outside _ </proc/self/uid_map
if [ "$outside" = 0 ]; then
  unbounded='as root, this kernel cannot bound the number of processes; run as an ordinary user'
  # An older kernel has one number for the whole machine, and does not take this from in here.
  if ! { echo 301 >/proc/sys/kernel/pid_max; } 2>/dev/null; then
    echo "$unbounded" >&2
    exit 125
  fi
fi
pivot_root . old
umount -l /old
rmdir /old
mount -o remount,bind,ro,nosuid,nodev /
cd /work
set +e
# Tried before the word is said: from there on, whatever fails is the command's own.
setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \
  prlimit --core=0 --nproc="$processes" --data="$data" true || exit 125
echo "$word"
export HOME=/tmp TMPDIR=/tmp
timeout -s KILL "$wall" \
  setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \
  prlimit --core=0 --nproc="$processes" --data="$data" --cpu="$cpu:$((cpu + 1))" --fsize="$file" --nofile=256 --memlock=0 \
  sh -c "$command"
exit $?
