import { receiver } from './datagrams.ts';
import type { Report } from './events.ts';
import { readProc } from './proc.ts';
import { printable } from './text.ts';

/**
 * A NOTIFY_SOCKET of our own, on which the child says by sd_notify(3) what it would say to the service manager. Undefined where there is none to be had. Anybody on this host can
 * write to an abstract socket (unix(7)), so others than the child's tree, ourselves and root are not heard.
 */
export function hearChild(report: Report): string | undefined {
  return receiver(({ text, pid, uid }) => {
    // A helper such as systemd-notify(1) may be gone by now, and cannot be traced to us.
    const isTrusted = uid === 0 || uid === process.getuid!() || descendsFromUs(pid);
    if (isTrusted) report({ type: 'notified', lines: text.split('\n').filter(Boolean).map(printable) });
  });
}

function descendsFromUs(pid: number): boolean {
  try {
    for (let proc = readProc(pid); proc; proc = readProc(proc.parent)) {
      if (proc.parent === process.pid) return true;
    }
  } catch {} // it cannot be told just now
  return false;
}
