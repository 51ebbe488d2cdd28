#!/bin/bash
# Runs the test programs listed in /postern/plan, one after the other: a line is SUITE, the program and the folder it
# starts in, parted by tabs. What each of them says is kept in results/SUITE.out, .err and .rc.
. /postern/environment
status=0
while IFS=$'\t' read -r suite program folder; do
    echo "postern-suite: $suite"
    cd "$folder" || exit 1
    start=$(date +%s)
    # Where a test says that this kernel cannot show what it is about.
    export POSTERN_TEST_BEYOND=/postern/results/$suite.beyond
    timeout --kill-after=30 "$SUITE_LIMIT" "$program" --test-threads=1 ${FILTER:+"$FILTER"} \
        2>"/postern/results/$suite.err" </dev/null | tee "/postern/results/$suite.out"
    rc=${PIPESTATUS[0]}
    echo "$rc" >"/postern/results/$suite.rc"
    echo $(($(date +%s) - start)) >"/postern/results/$suite.seconds"
    [ "$rc" = 0 ] || status=1
    # What is known is kept, should the guest not come to its end.
    tar -c -f /dev/vdd -C /postern/results .
done </postern/plan
dmesg >/postern/results/dmesg 2>&1
exit $status
