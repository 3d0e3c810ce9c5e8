import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, expect, onTestFinished, test } from 'vitest';
import { BIN, type Elect, elect, endAll, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, childrenOf, commandLine, until } from '../helpers/procs.ts';
import { withoutShell } from '../helpers/root.ts';
import { scratch, script } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import { closeTerminals, Terminal } from '../helpers/terminal.ts';
import { whatIsMissing } from '../helpers/tools.ts';

afterEach(closeTerminals);
afterEach(endAll);
afterAll(stopServers);

/** Two processes that count signals; TERM shows the counts and ends with 7. `counts` is what they say at the end. */
const COUNTER = `#!/usr/bin/perl
use strict;
my (%count, $pid);
my $isParent = 1;
for my $name (qw(INT QUIT HUP USR1 WINCH CONT)) {
  $SIG{$name} = sub { $count{$name}++; syswrite STDOUT, ($isParent ? 'parent' : 'child') . " has $name $count{$name}\\n" };
}
$SIG{TERM} = sub {
  my $who = $isParent ? 'parent' : 'child';
  waitpid $pid, 0 if $isParent;
  syswrite STDOUT, join(' ', $who, 'counted', map { "$_=$count{$_}" } sort keys %count) . ".\\n";
  exit 7;
};
$isParent = $pid = fork();
syswrite STDOUT, "ready to count\\n" if $isParent;
select undef, undef, undef, 1000 while 1;
`;

async function bothHave(terminal: Terminal, count: string): Promise<void> {
  for (const who of ['parent', 'child']) await terminal.shows(`${who} has ${count}`);
}

/** Until elect-run, with -v, has said for the n-th time that it has got this signal, and its witness as well: the kernel makes one of two that have not been handled yet. */
const hasHandled = (terminal: Terminal, name: string, times: number) =>
  terminal.shows(new RegExp(`(SIG${name} received[^]*){${times}}`));

async function open(size?: { columns: number; rows: number }): Promise<Terminal> {
  const dir = scratch();
  script(dir, 'counter', COUNTER);
  return Terminal.open(dir, size);
}

/** The pid of the elect-run that runs in this terminal. */
const electRunOf = (terminal: Terminal) =>
  until(() => {
    const pid = Number(readFileSync(join(terminal.dir, 'pid'), 'utf8'));
    return alive(pid) && pid;
  }, 'elect-run');

/** Somebody else who leads the terminal's election. */
async function holderOf(terminal: Terminal): Promise<Elect> {
  const holder = elect(['-b', `file:${terminal.dir}`, '-n', 'job', '--id', 'the-other', '--', 'sleep', '1000']);
  await holder.event('started');
  return holder;
}

const isLed = async (terminal: Terminal) =>
  (await elect(['-b', `file:${terminal.dir}`, '-n', 'job', '--no-wait', '--', 'true']).ended).code === 75;

const WITH_PID = 'sh -c \'echo $$ >pid; exec elect-run "$@"\' sh';

describeWith(['tmux', 'bash', 'pidns'], 'at a terminal, where there is no /bin/sh', () => {
  /** Counts INT; TERM shows the count and ends with 7. */
  const COUNT_INT = `
let count = 0;
process.on('SIGINT', () => console.log('has INT', ++count));
process.on('SIGTERM', () => { console.log('counted', count + '.'); process.exit(7); });
setInterval(() => {}, 1000);
console.log('ready to', 'count');
`;

  test('Ctrl-C, and a signal that is sent to elect-run alone, reach the command once', async () => {
    const terminal = await open();
    const root = withoutShell();
    onTestFinished(() => root.remove());
    const entered = [...root.prefix(), NODE, BIN].map((word) => `'${word}'`).join(' ');
    script(terminal.dir, 'elect-run', `#!/bin/sh\nexec ${entered} "$@"\n`);
    script(terminal.dir, 'count.js', COUNT_INT);
    await terminal.line(`${WITH_PID} -v -- ${NODE} ${terminal.dir}/count.js; echo "status=$?"`);
    await terminal.shows('ready to count');
    const pid = await electRunOf(terminal);
    for (const round of [1, 2, 3]) {
      await terminal.press('C-c');
      await terminal.shows(`has INT ${2 * round - 1}`);
      await hasHandled(terminal, 'INT', round);
      process.kill(pid, 'SIGINT');
      await terminal.shows(`has INT ${2 * round}`);
    }
    process.kill(pid, 'SIGTERM');
    expect(await terminal.shows('status=7')).toContain('counted 6.');
    expect(await isLed(terminal)).toBe(false);
  });
});

describeWith(['tmux', 'bash', 'perl'], 'at a terminal', () => {
  test('Ctrl-C ends the child, and the exit code is 130', async () => {
    const terminal = await open();
    await terminal.line('elect-run -v -- sleep 1000; echo "status=$?"');
    await terminal.shows('started sleep');
    await terminal.press('C-c');
    await terminal.shows('status=130');
    expect(await isLed(terminal)).toBe(false);
  });

  /** elect-run in a process group that goes on after a Ctrl-C, and shows its status then. */
  const WRAPPED = `#!/bin/sh
trap : INT
echo $$ >group
${WITH_PID} "$@"
echo "status=$?"
`;
  const interrupt = (terminal: Terminal) =>
    process.kill(-Number(readFileSync(join(terminal.dir, 'group'), 'utf8')), 'SIGINT');

  test('Ctrl-C between election and start ends the child, too, which has not had it', async () => {
    const terminal = await open();
    script(terminal.dir, 'wrapped', WRAPPED);
    const holder = await holderOf(terminal);
    await terminal.line('./wrapped -- sleep 1000');
    await terminal.shows('standing by');
    const pid = await electRunOf(terminal);
    await terminal.press('C-s'); // "elected" cannot be shown, and is waited for
    holder.kill('SIGTERM');
    const written = () => readFileSync(`/proc/${pid}/syscall`, 'latin1').startsWith('1 ');
    await until(written, 'elect-run that waits for the terminal');
    interrupt(terminal);
    await terminal.press('C-q');
    await terminal.shows('status=130');
    expect(await isLed(terminal)).toBe(false);
  });

  test('Ctrl-C reaches every process of the child once', async () => {
    const terminal = await open();
    await terminal.line(`${WITH_PID} -v -- ./counter; echo "status=$?"`);
    await terminal.shows('ready to count');
    for (const times of [1, 2, 3]) {
      await terminal.press('C-c');
      await bothHave(terminal, `INT ${times}`);
      await hasHandled(terminal, 'INT', times);
    }
    await terminal.press('C-\\');
    await bothHave(terminal, 'QUIT 1');
    process.kill(await electRunOf(terminal), 'SIGTERM');
    const screen = await terminal.shows('status=7');
    expect(screen).toContain('child counted INT=3 QUIT=1.');
    expect(screen).toContain('parent counted INT=3 QUIT=1.');
  });

  test('a signal that is sent to elect-run alone reaches every process of the child once', async () => {
    const terminal = await open();
    await terminal.line(`${WITH_PID} -- ./counter; echo "status=$?"`);
    await terminal.shows('ready to count');
    const pid = await electRunOf(terminal);
    for (const name of ['INT', 'HUP', 'USR1', 'WINCH'] as const) process.kill(pid, `SIG${name}`);
    for (const name of ['INT', 'HUP', 'USR1', 'WINCH']) await bothHave(terminal, `${name} 1`);
    process.kill(pid, 'SIGTERM');
    const screen = await terminal.shows('status=7');
    expect(screen).toContain('child counted HUP=1 INT=1 USR1=1 WINCH=1.');
    expect(screen).toContain('parent counted HUP=1 INT=1 USR1=1 WINCH=1.');
  });

  test('a signal that is sent to the whole process group reaches every process of the child once', async () => {
    const terminal = await open();
    await terminal.line(`${WITH_PID} -- ./counter; echo "status=$?"`);
    await terminal.shows('ready to count');
    const group = await electRunOf(terminal);
    process.kill(-group, 'SIGHUP');
    await bothHave(terminal, 'HUP 1');
    process.kill(-group, 'SIGTERM');
    const screen = await terminal.shows('status=7');
    expect(screen).toContain('child counted HUP=1.');
    expect(screen).toContain('parent counted HUP=1.');
  });

  test('Ctrl-Z stops the job, fg goes on with it, and it has led all the time', async () => {
    const terminal = await open();
    await terminal.line(
      `elect-run -v -- bash -c 'while read line; do echo "token $FENCING_TOKEN has \${line^^}"; done'; echo "status=$?"`,
    );
    await terminal.shows('started bash');
    await terminal.line('one');
    await terminal.shows('token 1 has ONE');
    for (const word of ['two', 'three']) {
      await terminal.press('C-z');
      await terminal.shows(/Stopped/);
      await terminal.prompt();
      expect(await isLed(terminal)).toBe(true);
      await terminal.clear();
      await terminal.line('fg');
      await terminal.shows('SIGCONT received'); // before it, a line may reach the terminal while it is still the shell's, in raw mode
      await terminal.line(word);
      await terminal.shows(`token 1 has ${word.toUpperCase()}`);
    }
    await terminal.press('C-d');
    await terminal.prompt();
    expect(await isLed(terminal)).toBe(false);
  });

  test('Ctrl-Z and bg: the job goes on in the background', async () => {
    const terminal = await open();
    await terminal.line(`elect-run -v -- sh -c 'while [ ! -e end ]; do sleep 0.05; done; echo it is "over"; exit 3'`);
    await terminal.shows('started sh');
    await terminal.press('C-z');
    await terminal.shows('Stopped');
    await terminal.line('bg; touch end; wait %1; echo "status=$?"');
    const screen = await terminal.shows('status=3');
    expect(screen).toContain('it is over');
  });

  test('a job that stops itself is shown as stopped by the shell', async () => {
    const terminal = await open();
    await terminal.line(`elect-run -- perl -e 'kill TSTP => 0; print "after the stop\\n"'; echo "status=$?"`);
    await terminal.shows('Stopped');
    await terminal.clear();
    await terminal.line('fg; echo "status=$?"');
    const screen = await terminal.shows('status=0');
    expect(screen).toContain('after the stop');
  });

  test('a password is read from the terminal without being shown, whatever stdin is', async () => {
    const terminal = await open();
    const read = `read -rs -p 'Password: ' word </dev/tty; echo; echo "it has \${#word} letters"`;
    script(terminal.dir, 'asks', `#!/bin/bash\n${read}\n`);
    for (const stdin of ['', ' </dev/null']) {
      await terminal.line(`elect-run -- ./asks${stdin}`);
      await terminal.shows('Password:');
      await terminal.line('topsecret');
      const screen = await terminal.shows('it has 9 letters');
      expect(screen).not.toContain('topsecret');
      await terminal.prompt();
      await terminal.clear();
    }
  });

  test('a change of the window’s size reaches the child once', async () => {
    const terminal = await open();
    await terminal.line(`${WITH_PID} -v -- ./counter; stty size; echo "status=$?"`);
    await terminal.shows('ready to count');
    await terminal.resize(100, 30);
    await bothHave(terminal, 'WINCH 1');
    await hasHandled(terminal, 'WINCH', 1);
    await terminal.resize(110, 31);
    await bothHave(terminal, 'WINCH 2');
    process.kill(await electRunOf(terminal), 'SIGTERM');
    const screen = await terminal.shows('31 110');
    expect(screen).toContain('child counted WINCH=2.');
    expect(screen).toContain('parent counted WINCH=2.');
  });

  test('the child sees a terminal of the right size on all three descriptors', async () => {
    const terminal = await open({ columns: 97, rows: 33 });
    await terminal.line(`elect-run -- bash -c 'test -t 0 && test -t 1 && test -t 2 && stty size'`);
    await terminal.shows('33 97');
  });

  test('the terminal’s settings are the same afterwards', async () => {
    const terminal = await open();
    await terminal.line(
      'stty -g >before; elect-run -- true; stty -g >after; cmp before after && echo "they are" equal',
    );
    await terminal.shows('they are equal');
    await terminal.prompt();
    expect(await terminal.cursor()).toMatchObject({ isVisible: true, isFullScreen: false });
  });

  test('a job started in the background can be brought to the front, and reads then', async () => {
    const terminal = await open();
    await terminal.line('set -b'); // it tells at once what has stopped
    await terminal.line(`elect-run -v -- bash -c 'echo at "work"; read line; echo "it read \${line^^}"' &`);
    await terminal.shows('at work');
    await terminal.shows('Stopped');
    await terminal.line('fg');
    await terminal.shows('SIGCONT received'); // as above
    await terminal.line('hello');
    await terminal.shows('it read HELLO');
    await terminal.prompt();
  });

  test('Ctrl-C at the shell leaves a job in the background alone', async () => {
    const terminal = await open();
    await terminal.line(`elect-run -- sh -c 'echo at "work"; while [ ! -e end ]; do sleep 0.05; done; exit 3' &`);
    await terminal.shows('at work');
    await terminal.press('C-c');
    await terminal.prompt();
    await terminal.line('touch end; wait %1; echo "status=$?"');
    await terminal.shows('status=3');
  });

  test('in a pipeline what the child writes goes on, and what elect-run says does not', async () => {
    const terminal = await open();
    await terminal.line(`echo abc | elect-run -- tr a-c A-C | sed 's/^/piped /'; echo "status=\${PIPESTATUS[*]}"`);
    const screen = await terminal.shows('status=0 0 0');
    expect(screen).toContain('piped ABC');
    expect(screen).not.toContain('piped elect-run');
  });

  test('Ctrl-C ends a whole pipeline', async () => {
    const terminal = await open();
    await terminal.line('elect-run -v -- sleep 1000 | cat');
    await terminal.shows('started sleep');
    await terminal.press('C-c');
    await terminal.prompt();
    expect(await isLed(terminal)).toBe(false);
  });

  test('closing the window ends the job and frees the leadership', async () => {
    const terminal = await open();
    await terminal.line(`${WITH_PID} -v -- sleep 1000`);
    await terminal.shows('started sleep');
    const pid = await electRunOf(terminal);
    const child = await until(() => childrenOf(pid).find((one) => commandLine(one)[0] === 'sleep'), 'the child');
    await terminal.hangUp();
    await until(() => !alive(pid) && !alive(child), 'the end of both');
    expect(await isLed(terminal)).toBe(false);
  });

  test('the child is in the foreground: nothing of it is stopped for reading or writing', async () => {
    const terminal = await open();
    await terminal.line('stty tostop');
    await terminal.line(`elect-run -- sh -c 'echo "out $((6 * 7))"; echo "err $((6 * 7))" >&2; read x; echo "in $x"'`);
    await terminal.shows('out 42');
    await terminal.shows('err 42');
    await terminal.line('text');
    await terminal.shows('in text');
    await terminal.prompt();
  });
});

describeWith(['tmux', 'bash'], 'an interactive shell as the child', () => {
  test('has job control of its own', async () => {
    const terminal = await open();
    await terminal.line(`PS1='inner> ' elect-run -- bash --norc --noprofile -i; echo "status=$?"`);
    await terminal.shows(/^inner>$/m);
    // The terminal is the shell's until the job says something.
    await terminal.line(`sh -c 'trap "echo goes \\"on\\"" CONT; echo at "work"; while :; do sleep 0.05; done'`);
    await terminal.shows('at work');
    await terminal.press('C-z');
    await terminal.shows('Stopped');
    await terminal.line('fg');
    await terminal.shows('goes on');
    await terminal.press('C-c');
    await terminal.line('echo "next $((6 * 7))"');
    await terminal.shows('next 42');
    expect(await isLed(terminal)).toBe(true);
    await terminal.line('exit 5');
    await terminal.shows('status=5');
    expect(await isLed(terminal)).toBe(false);
  });
});

describeWith(['tmux', 'bash', 'etcd', 'etcdctl'], 'a terminal that is held by Ctrl-S', () => {
  test('does not cost leadership', async () => {
    const etcd = await Etcd.start();
    const terminal = await open();
    await terminal.line(`elect-run -v -b ${etcd.url} -n jobs/x --ttl 3s -- sleep 1000; echo "status=$?"`);
    await terminal.shows('lease renewed');
    await terminal.press('C-s');
    const next = elect(['-b', etcd.url, '-n', 'jobs/x', '--wait', '5s', '--', 'true']);
    expect((await next.ended).code).toBe(75);
    await terminal.press('C-q');
    await terminal.press('C-c');
    await terminal.shows('status=130');
  });
});

describeWith(['tmux', 'bash', 'etcd', 'etcdctl'], 'a job that is stopped for longer than its lease', () => {
  test('is ended before the next one starts, and fg shows the loss', async () => {
    const etcd = await Etcd.start();
    const terminal = await open();
    const work = join(terminal.dir, 'work');
    const holdsIt = `sh -c 'exec 9>>${work}; flock --nonblock 9 && echo "at $((6 * 7))"; exec sleep 1000'`;
    await terminal.line(`elect-run -b ${etcd.url} -n jobs/x --ttl 3s -- ${holdsIt}`);
    await terminal.shows('at 42');
    await terminal.press('C-z');
    await terminal.shows('Stopped');
    const next = elect(['-b', etcd.url, '-n', 'jobs/x', '--', 'flock', '--nonblock', work, 'true']);
    expect((await next.ended).code).toBe(0);
    await terminal.line('fg');
    await terminal.shows('leadership lost');
    await terminal.line('echo "status=$?"');
    await terminal.shows('status=79');
  });

  test('a standby that was stopped for longer than its place lasts stands by again', async () => {
    const etcd = await Etcd.start();
    const terminal = await open();
    const holder = elect(['-b', etcd.url, '-n', 'jobs/x', '--', 'sleep', '1000']);
    await holder.event('started');
    await terminal.line(`elect-run -b ${etcd.url} -n jobs/x --ttl 3s -- sh -c 'exit 6'`);
    await terminal.shows('standing by');
    await etcd.inLine('jobs/x', 2);
    await terminal.press('C-z');
    await terminal.shows('Stopped');
    await etcd.inLine('jobs/x', 1);
    await terminal.clear();
    await terminal.line('fg; echo "status=$?"');
    await etcd.inLine('jobs/x', 2);
    holder.kill('SIGTERM');
    await terminal.shows('status=6');
  });
});

describeWith(['tmux', 'bash'], 'standing by at a terminal', () => {
  test('shows who leads, and nothing of it is left once elected', async () => {
    const terminal = await open();
    const holder = await holderOf(terminal);
    await terminal.line(`elect-run -- sh -c 'echo "work $((6 * 7))"'; echo "status=$?"`);
    await terminal.shows(/standing by: the-other-\S+ leads since/);
    holder.kill('SIGTERM');
    const screen = await terminal.shows('status=0');
    expect(screen).toContain('work 42');
    expect(screen).not.toContain('standing by');
    expect(await terminal.cursor()).toMatchObject({ isVisible: true });
  });

  test('Ctrl-C ends it with 130, and the next prompt starts a line', async () => {
    const terminal = await open();
    await holderOf(terminal);
    await terminal.line('elect-run -- touch ran; echo "status=$?"');
    await terminal.shows('standing by');
    await terminal.press('C-c');
    await terminal.shows(/^status=130$/m);
    await terminal.prompt();
    expect(await terminal.cursor()).toMatchObject({ isVisible: true });
  });

  test('Ctrl-Z stops it, fg goes on with it', async () => {
    const terminal = await open();
    const holder = await holderOf(terminal);
    await terminal.line('elect-run -- sh -c "exit 6"');
    await terminal.shows('standing by');
    await terminal.press('C-z');
    await terminal.shows('Stopped');
    await terminal.clear();
    await terminal.line('fg; echo "status=$?"');
    holder.kill('SIGTERM');
    await terminal.shows('status=6');
  });

  test('what is typed meanwhile is the child’s', async () => {
    const terminal = await open();
    const holder = await holderOf(terminal);
    await terminal.line(`elect-run -- bash -c 'read line; echo "it read \${line^^}"'`);
    await terminal.shows('standing by');
    await terminal.line('early');
    holder.kill('SIGTERM');
    await terminal.shows('it read EARLY');
  });

  test('a place in line that is renewed leaves the spinner where it was', async () => {
    expect(whatIsMissing(['etcd', 'etcdctl'])).toBe(undefined);
    const terminal = await open();
    const args = ['-b', (await Etcd.start()).url, '-n', 'jobs/x', '--ttl', '3s', '--renew-every', '300ms'];
    await elect([...args, '--', 'sleep', '1000']).event('started');
    await terminal.line(`elect-run -v ${args.join(' ')} -- true`);
    await terminal.shows(/(our place in the store is good for \S+\n[^\n]*){3}standing by/);
  });

  test('a terminal of zero columns has no spinner and does not hang', async () => {
    const terminal = await open();
    const holder = await holderOf(terminal);
    await terminal.line(
      'stty cols 0 rows 0; elect-run -- sh -c "exit 6"; s=$?; stty cols 150 rows 40; echo "status=$s"',
    );
    await terminal.shows('standing by');
    holder.kill('SIGTERM');
    await terminal.shows('status=6');
  });

  test('a terminal that can do nothing (TERM=dumb) has plain lines', async () => {
    const terminal = await open();
    const holder = await holderOf(terminal);
    await terminal.line('TERM=dumb elect-run -- sh -c "exit 6"; echo "status=$?"');
    await terminal.shows('standing by: the-other');
    holder.kill('SIGTERM');
    const screen = await terminal.shows('status=6');
    expect(screen).toContain('standing by: the-other');
  });

  test('messages that go to a file have no spinner and no colour', async () => {
    const terminal = await open();
    const holder = await holderOf(terminal);
    await terminal.line('elect-run -- sh -c "exit 6" 2>messages; echo "status=$?"');
    const messages = join(terminal.dir, 'messages');
    await until(() => readFileSync(messages, { encoding: 'utf8', flag: 'a+' }).includes('standing by'), 'the message');
    holder.kill('SIGTERM');
    await terminal.shows('status=6');
    for (const line of readFileSync(messages, 'utf8').trim().split('\n'))
      expect(line).toMatch(/^elect-run: [\x20-\x7e]+$/);
  });
});

describeWith(['tmux', 'bash', 'less'], 'a full-screen program', () => {
  test('works, follows the window, and leaves the terminal as it was', async () => {
    const terminal = await open();
    writeFileSync(
      join(terminal.dir, 'text'),
      Array.from({ length: 500 }, (_, line) => `line number ${line}`).join('\n'),
    );
    await terminal.line(
      'stty -g >before; elect-run -- less text; echo "status=$?"; stty -g >after; cmp before after && echo "they are" equal',
    );
    await terminal.shows('line number 10');
    expect(await terminal.cursor()).toMatchObject({ isFullScreen: true });
    await terminal.type('G');
    await terminal.shows('line number 499');
    await terminal.resize(90, 20);
    await terminal.shows(/line number 479\n:$/); // a key that comes while it draws anew is lost
    await terminal.type('g');
    await terminal.shows(/line number 18\n[^\n]*$/);
    await terminal.type('q');
    await terminal.shows('they are equal');
    expect(await terminal.shows('status=0')).not.toContain('line number');
    expect(await terminal.cursor()).toMatchObject({ isFullScreen: false, isVisible: true });
  });

  test('has tidied up when the shell says that it has stopped', async () => {
    const terminal = await open();
    const program = `process.on('SIGTSTP', () => setTimeout(() => {
      console.log('tidied up');
      process.kill(process.pid, 'SIGSTOP');
    }, 100));
    setInterval(() => {}, 1000);
    console.log('at', 'work');`;
    writeFileSync(join(terminal.dir, 'tidy.js'), program);
    await terminal.line('elect-run -- node tidy.js');
    await terminal.shows('at work');
    await terminal.press('C-z');
    expect(await terminal.shows('Stopped')).toMatch(/tidied up.*Stopped/s);
    await terminal.line('kill -9 %1');
    await terminal.prompt();
  });

  test('can be stopped and brought back', async () => {
    const terminal = await open();
    writeFileSync(join(terminal.dir, 'text'), 'the only line\n');
    await terminal.line('elect-run -- less text');
    await terminal.shows('the only line');
    await terminal.press('C-z');
    await terminal.shows('Stopped');
    await terminal.clear();
    await terminal.line('fg');
    await terminal.shows('the only line');
    await terminal.type('q');
    await terminal.prompt();
  });
});
