# Runs a command where only a copy of the workspace can be written: sh box.sh WORKSPACE STORE FOLDER
# DIR… -- COMMAND… Started by `unshare` in namespaces of its own. What is mounted here vanishes with
# them. Every step that fails ends it before the command runs.
set -eu
workspace=$1 store=$2 folder=$3
shift 3
command -v setpriv >/dev/null || { echo 'there is no setpriv' >&2; exit 1; }
root=$store/root
mount -t tmpfs -o mode=0755,nosuid,nodev none "$root"
# First, so that what is to be read may lie in it; it is the only one that stays as it is.
mkdir "$root/tmp"
mount -t tmpfs -o nosuid,nodev none "$root/tmp"
own=$(stat -c %d "$root/tmp")
while [ "$1" != -- ]; do
    if [ -L "$1" ]; then
        mkdir -p "$root$(dirname "$1")"
        cp -P "$1" "$root$1"
    elif [ -d "$1" ]; then
        mkdir -p "$root$1"
        mount --rbind "$1" "$root$1"
    fi
    shift
done
shift
[ "$(stat -c %d "$root/tmp")" = "$own" ] || { echo '/tmp is none to be read' >&2; exit 1; }
# What came along below the folders above can be written no more than they.
while read -r _ _ _ _ place _; do
    case $place in
        "$root/tmp") ;;
        "$root"/*) mount -o remount,bind,ro "$place" ;;
    esac
done </proc/self/mountinfo
mkdir "$root/dev" "$root/proc" "$root/.old"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mount -t proc -o nosuid,nodev,noexec none "$root/proc"
mkdir -p "$root$workspace"
mount -t overlay -o "userxattr,lowerdir=$workspace,upperdir=$store/upper,workdir=$store/work" \
    none "$root$workspace"
cd "$root"
pivot_root . .old
umount -l /.old
rmdir /.old
mount -o remount,bind,ro /
cd "$folder"
unset OLDPWD
echo 'holdpoint: ready'
# Without a capability it can undo nothing of this.
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
