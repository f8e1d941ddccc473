#!/bin/sh
# A nightly job: ask the database, store the response as a file, and tell by the exit status what went wrong.
# Run: KEY_FILE=/etc/aerostack.key sh examples/cron_job.sh  (in a crontab: 15 2 * * * KEY_FILE=... /path/cron_job.sh)
set -u
umask 077  # the report is nobody else's to read
module=${AEROSTACK_LITE:-$(dirname "$0")/../aerostack_lite.py}
report=$(mktemp) || exit 2
trap 'rm -f "$report"' EXIT

# A key file (chmod 600) keeps the key out of the crontab and the process list.
aerostack() { python3 "$module" "$@" --key-file "$KEY_FILE" --timeout 60; }

aerostack db_query sql='SELECT CURRENT_DATE AS day, 1 AS alive' >"$report" &&
    aerostack storage_upload key="reports/$(date +%Y-%m-%d).json" file=@"$report" --field url
status=$?

case $status in  # cron mails what we print; the command has printed the reason already
    0) ;;
    1) echo "The API returned an error; somebody must look at it." >&2 ;;
    2) echo "This job is set up wrong." >&2 ;;
    3) echo "No response; the next night will do." >&2; status=0 ;;
    4) echo "The response came but could not be written; is the disk full?" >&2 ;;
esac
exit $status
