#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A job of the campaign: it writes its own start and end to a ledger that OCPS does not touch.
# Its one argument, or PIPELINE_URL, is LEDGER/TOKEN-DURATION-CODE-WAY.yaml.
place=${1:-$PIPELINE_URL}
ledger=${place%/*}
name=${place##*/}
name=${name%.yaml}
token=${name%%-*}; name=${name#*-}
duration=${name%%-*}; name=${name#*-}
code=${name%%-*}; way=${name#*-}
echo "start $$" >> "$ledger/$token"
case $way in
    escape) setsid sh -c "sleep 3600; : $token" & ;;
    deaf) trap '' TERM ;;
    write) head -c 100000 /dev/zero > block || code=9 ;;
esac
sleep "$duration"
echo "$token" > answer || code=9
echo "end $code" >> "$ledger/$token"
exit "$code"
