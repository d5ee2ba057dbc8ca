#!/bin/sh
# Calls a person after cockpit-load.service has failed: what COCKPIT_CALL says gets the message that the load left in
# COCKPIT_MESSAGE_FILE, its first line as COCKPIT_SUBJECT. Without that file the service ended before it could say why.
set -u

message_file=${COCKPIT_MESSAGE_FILE:-}
COCKPIT_SUBJECT="cockpit load needs you: the service failed on $(uname -n)"
COCKPIT_EXIT_CODE=${MONITOR_EXIT_STATUS:-unknown}
message="It ended before it could say why (${MONITOR_SERVICE_RESULT:-unknown}): it was killed, took too long, or could not
start. See: journalctl --unit=cockpit-load.service"

if [ -n "$message_file" ] && [ -s "$message_file" ]; then
    COCKPIT_SUBJECT=$(head -n 1 "$message_file")
    message=$(tail -n +2 "$message_file")
fi
export COCKPIT_SUBJECT COCKPIT_EXIT_CODE

if [ -z "${COCKPIT_CALL:-}" ]; then
    echo "COCKPIT_CALL is not set, so nobody was called: $COCKPIT_SUBJECT" >&2
    exit 1
fi
printf '%s\n' "$message" | sh -c "$COCKPIT_CALL"
