"""Types into a program in a pseudo terminal and prints its output. Usage: type.py PROGRAM [ARGUMENT...]; standard input is a JSON list
of pairs: the text to wait for, and the text to type then (null: nothing). A third element "hidden" waits until the terminal shows no input.
Standard library only, Unix only."""

import json
import os
import pty
import select
import sys
import termios
import time

steps = json.load(sys.stdin)
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
deadline = time.monotonic() + 60
seen, place = "", 0


def read():
    """Reads more output of the program; False at its end."""
    global seen
    if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
        sys.exit("too late; seen:\n" + seen)
    try:
        data = os.read(terminal, 65536)
    except OSError:
        data = b""
    seen += data.decode("utf-8", "replace")
    return bool(data)


for awaited, typed, *how in steps:
    while awaited not in seen[place:]:
        if not read():
            sys.exit("ended before " + repr(awaited) + "; seen:\n" + seen)
    place += seen[place:].index(awaited) + len(awaited)
    # What is typed before that is discarded.
    while how and termios.tcgetattr(terminal)[3] & termios.ECHO:
        if time.monotonic() > deadline:
            sys.exit("the input is shown; seen:\n" + seen)
        time.sleep(0.01)
    if typed is not None:
        os.write(terminal, typed.encode())
while read():
    pass
print(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
