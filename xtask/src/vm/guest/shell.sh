#!/bin/bash
# A prompt in the guest, or one command of it.
. /postern/environment
export TERM=${POSTERN_TERM:-vt220}
cd /root
. /postern/links
if [ -s /postern/command ]; then
    exec bash /postern/command
fi
cat <<'HELP'

  Postern's guest. You are root; nothing here reaches the network.

    demo                                            the whole story, with mock upstreams
    postern doctor                                  what works on this kernel
    postern exec --policy policies/locked-down -- bash
    postern check policies/anthropic

  `exit` (or Ctrl-D) switches the machine off and forgets what was done in it.

HELP
export PS1='\[\e[1m\]postern-guest\[\e[0m\]:\w# '
exec bash --norc -i
