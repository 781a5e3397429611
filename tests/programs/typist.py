# Types at a program that runs on a terminal of its own: python3 typist.py 'WAIT FOR' 'THEN TYPE' … -- PROGRAM ARGUMENT…
# Prints all that the terminal showed, and ends as the program did.
import os
import pty
import sys

split = sys.argv.index('--')
script, program = sys.argv[1:split], sys.argv[split + 1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program[0], program)
shown = b''
steps = list(zip(script[::2], script[1::2]))
while True:
    try:
        seen = os.read(terminal, 4096)
    except OSError:
        break
    if not seen:
        break
    shown += seen
    if steps and steps[0][0].encode() in shown:
        os.write(terminal, steps.pop(0)[1].encode().decode('unicode_escape').encode())
sys.stdout.buffer.write(shown)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
