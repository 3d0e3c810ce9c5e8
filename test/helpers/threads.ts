const PROGRAM = `
import ctypes, os, subprocess, sys, threading, time

def work():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.002)
    with open(sys.argv[1], "a") as told:
        told.write(f"ESCAPED {os.getpid()}\\n")
    if sys.argv[2:]:
        subprocess.Popen(sys.argv[2:], close_fds=False)
    time.sleep(100000)

threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
`;

/**
 * The start of a shell's command line: a program whose first thread ends by pthread_exit(3) while another one works on. That one then appends `ESCAPED` and their pid to the
 * file that follows, and starts the command after it, if there is one.
 */
export const LOSES_ITS_FIRST_THREAD = `python3 -c '${PROGRAM}'`;
