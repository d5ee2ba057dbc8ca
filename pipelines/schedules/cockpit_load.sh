#!/bin/sh
# `cockpit load` for a scheduler, with the arguments of `cockpit load`: tells people by its exit code, and ends with it.
#
#   0           every scope was read           silent
#   3           some scopes were not read      warns
#   6           another run or a reader        was tried again, and is still so after the last try: warns
#   4           held back by the drop guard    calls; the message says how to accept it
#   5           sign-in refused                calls
#   1, 2, other failed, wrong set-up, killed   calls
#
# All of this is set by environment variables:
#   COCKPIT               the command, cockpit unless set
#   COCKPIT_WARN          what warns, and
#   COCKPIT_CALL          what calls a person: a command for sh, which gets the message on its standard input, and
#                         COCKPIT_SUBJECT and COCKPIT_EXIT_CODE in its environment. Unset, the message goes to stderr,
#                         which cron mails.
#   COCKPIT_LOG           a file to which all output is added when the load has ended, or - for stdout
#   COCKPIT_BUSY_TRIES    how often the load tries while another run or a reader is in the way, 6 unless set; of
#                         several tenants only those are tried again that were held
#   COCKPIT_BUSY_SECONDS  how long it waits between these, 600 unless set
#   COCKPIT_MESSAGE_FILE  where to leave the last message that calls, for whoever else does the calling
set -u

cockpit=${COCKPIT:-cockpit}
log=${COCKPIT_LOG:-}
message_file=${COCKPIT_MESSAGE_FILE:-}
# these two are for the load itself
export COCKPIT_BUSY_TRIES="${COCKPIT_BUSY_TRIES:-6}" COCKPIT_BUSY_SECONDS="${COCKPIT_BUSY_SECONDS:-600}"

# with a full disk too the load is tried, and somebody called
output=$(mktemp) || output=/dev/null
trap '[ "$output" = /dev/null ] || rm -f "$output"' EXIT
[ -z "$message_file" ] || rm -f "$message_file"

# a signal is passed on: the load then ends in order
child= stopped=
pass_on() {
    stopped=yes
    [ -z "$child" ] || kill -s TERM "$child" 2>/dev/null
}
trap pass_on HUP INT TERM

# Runs its arguments until they end, also where a signal comes meanwhile; the status is theirs.
attend() {
    "$@" &
    child=$!
    wait "$child"
    status=$?
    while [ "$status" -gt 128 ] && kill -s 0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    if [ -n "$stopped" ]; then
        # the signal may have ended the last wait just before the child ended; 127: nothing was left to wait for
        wait "$child" 2>/dev/null
        late=$?
        [ "$late" -eq 127 ] || status=$late
    fi
    child=
    return "$status"
}

write_message() {
    printf '%s\n\n' "$advice"
    tail -n 100 "$output"
}

# tell COMMAND: the message on the standard input of COMMAND; on stderr where there is none, or it fails.
tell() {
    if [ -n "$1" ]; then
        write_message | COCKPIT_SUBJECT="$subject" COCKPIT_EXIT_CODE="$code" sh -c "$1" && return
        echo "The command that should have told this ended with exit code $?: $1" >&2
    fi
    printf '%s\n' "$subject" >&2
    write_message >&2
}

warn() {
    subject="cockpit load warns: $1"
    advice=$2
    tell "${COCKPIT_WARN:-}"
}

call() {
    subject="cockpit load needs you: $1"
    advice=$2
    [ -z "$message_file" ] || { printf '%s\n' "$subject"; write_message; } >"$message_file"
    tell "${COCKPIT_CALL:-}"
}

now() { date -u '+%Y-%m-%d %H:%M:%S UTC'; }

begun=$(now)
code=0
attend "$cockpit" load "$@" >"$output" 2>&1 || code=$?
case $log in
    '') ;;
    -) cat "$output" ;;
    *) { echo "begun $begun"; cat "$output"; echo "ended $(now) (exit code $code)"; } >>"$log" ;;
esac

if [ -n "$stopped" ] && { [ "$code" -eq 1 ] || [ "$code" -gt 6 ]; }; then
    warn "it was told to stop before it had read anything (exit code $code)" \
        "The tables are as they were; the next load carries on."
    exit "$code"
fi
case $code in
    0) ;;
    3) warn "some scopes were not read (exit code 3)" \
        "The others are loaded, and these keep the rows of their last good read. cockpit status, with the --project and --destination of this load, says which and why." ;;
    6) warn "the database stayed in use (exit code 6)" \
        "Nothing was lost. The message names who holds it; the next load on schedule tries again." ;;
    4) call "the drop guard held something back (exit code 4)" \
        "Everything else is loaded. The message says what was held back, and the command that accepts it." ;;
    5) call "the sign-in was refused (exit code 5)" \
        "No load can succeed before client_id and client_secret are right again." ;;
    2) call "configuration or destination is wrong (exit code 2)" \
        "No load can succeed before what the message names is corrected; then: cockpit check, with the --project and --destination of this load." ;;
    1) call "nothing could be read (exit code 1)" \
        "The tables are as they were. The message says why; then run again." ;;
    126 | 127) call "$cockpit cannot be run (exit code $code)" \
        "Set COCKPIT to the path of the command, for example /opt/cockpit/bin/cockpit." ;;
    *) call "it ended in the middle (exit code $code)" \
        "It was killed, perhaps for want of memory. The next load carries on where it stopped." ;;
esac
exit "$code"
