# watcher.sh LOCK DIR LINGER_S: the end of a set of servers, whatever became of the tests that used it.
#
# Waits until nobody holds LOCK any more (the kernel lets go of it for a killed test too), then stops every server that
# lives in DIR and removes DIR. With LINGER_S above 0 it gives the next test that many seconds to come. An empty LOCK
# means now. Standard input may be a listening socket: the set's claim on its addresses, held by being held open.
#
# "Lives in DIR" means: a program the harness or `octo` starts, with its working directory below DIR. A developer's
# shell or editor in that directory is not on the list and stays.
trap '' HUP INT TERM
lock=$1 dir=$2 linger=$3

# The pids of the programs named by the pattern $1 that live in DIR.
living() {
    for proc in /proc/[0-9]*; do
        read -r name <"$proc/comm" || continue
        eval "case \$name in $1) ;; *) continue ;; esac"
        case $(readlink "$proc/cwd")/ in "$dir"/*) printf '%s ' "${proc#/proc/}" ;; esac
    done
}

# Everyone who attaches writes a new word into LOCK, so a test that came and went during the linger is seen.
wait_until_unused() {
    exec 9<"$lock" || exit 1
    while flock -x 9 || exit 1; do
        [ "$linger" = 0 ] && return
        before=$(cat "$lock")
        flock -u 9
        sleep "$linger"
        flock -xn 9 && [ "$(cat "$lock")" = "$before" ] && return
    done
}

# The processes of the browsers: Chromium, Firefox (which names them by their work), WebKitGTK and its display.
browsers='chromium|chrome_*|firefox*|forkserver|WebExtensions|*\ Process|*\ Co|*\ Cont|*\ Content|MiniBrowser|WebKit*|Xvfb'

# PostgreSQL by SIGQUIT, so that it gives its shared memory back; SIGKILL for what does not listen.
stop_servers() {
    while pids=$(living "octo|redis-server|pgbouncer|prometheus|initdb|pg_*|psql|cp|$browsers") && [ -n "$pids" ]; do
        kill -KILL $pids
        sleep 0.02
    done
    tries=0
    while pids=$(living postgres) && [ -n "$pids" ]; do
        tries=$((tries + 1))
        if [ $((tries % 20)) = 1 ]; then
            [ "$tries" -lt 60 ] && kill -QUIT $pids
            [ "$tries" -ge 60 ] && kill -KILL $pids
            kill -CONT $pids
        fi
        sleep 0.05
    done
}

# A killed postmaster leaves a System V segment; the seventh line of its pid file names it.
free_shared_memory() {
    find "$dir" -name postmaster.pid -exec sed -n 7p {} \; | while read -r _key segment; do
        ipcrm -m "$segment"
    done
}

[ -n "$lock" ] && wait_until_unused
[ -d "$dir" ] || exit 0
rm -f "$dir/ready.json"
stop_servers
free_shared_memory
rm -rf "$dir"
