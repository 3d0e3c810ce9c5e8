import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { BIN, NODE } from './elect.ts';
import { script } from './scratch.ts';

const POLL_MS = 30;
const PROMPT = 'shell>';

/** The start file below the terminal's folder, the command that reads no other, and what makes the shell's own output plain. */
const SHELLS = {
  bash: {
    file: 'bashrc',
    start: (dir: string) => `bash --noprofile --rcfile '${dir}/bashrc' -i`,
    quiet: 'unset PROMPT_COMMAND; set +o history; bind "set enable-bracketed-paste off"',
  },
  zsh: {
    file: '.zshrc',
    start: (dir: string) => `ZDOTDIR='${dir}' zsh --no-globalrcs -i`,
    quiet: 'unsetopt prompt_sp; unset zle_bracketed_paste; bindkey -e',
  },
};

/**
 * A real terminal with an interactive shell in it, by way of a tmux server of its own. `elect-run` is in its PATH and campaigns for
 * the election `job` on a file in `dir`. Nobody tells of a terminal's changes: what it shows is looked at until it is so.
 */
export class Terminal {
  readonly dir: string;
  readonly #socket: string;

  private constructor(dir: string) {
    this.dir = dir;
    this.#socket = join(dir, 'tmux');
  }

  /** `rc`: lines for the shell's start file. */
  static async open(
    dir: string,
    {
      columns = 150,
      rows = 40,
      shell = 'bash',
      rc = [],
    }: { columns?: number; rows?: number; shell?: keyof typeof SHELLS; rc?: string[] } = {},
  ): Promise<Terminal> {
    const terminal = new Terminal(dir);
    terminals.add(terminal);
    script(dir, 'elect-run', `#!/bin/sh\nexec '${NODE}' '${BIN}' "$@"\n`);
    const { file, start, quiet } = SHELLS[shell];
    const lines = [
      `PS1='${PROMPT} ' PATH='${dir}':$PATH`,
      `export ELECT_RUN_BACKEND='file:${dir}' ELECT_RUN_NAME=job`,
      `cd '${dir}'`,
      quiet,
      ...rc,
    ];
    writeFileSync(join(dir, file), `${lines.join('\n')}\n`);
    const env = ['-u', 'ELECT_RUN_LOG_FORMAT', '-u', 'TMUX', 'LC_ALL=C.UTF-8', 'NO_COLOR=1'];
    const command = `exec env ${env.join(' ')} ${start(dir)}`;
    await terminal.#tmux('-f', '/dev/null', '-u', 'new-session', '-d', '-x', `${columns}`, '-y', `${rows}`, command);
    await terminal.prompt();
    return terminal;
  }

  async #tmux(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('tmux', ['-S', this.#socket, ...args]);
    return stdout;
  }

  /** Types the text as it is. */
  async type(text: string): Promise<void> {
    await this.#tmux('send-keys', '-l', '--', text);
  }

  /** Presses a key by tmux's name for it: Enter, C-c, C-z, `C-\`. */
  async press(...keys: string[]): Promise<void> {
    await this.#tmux('send-keys', ...keys);
  }

  async line(text: string): Promise<void> {
    await this.type(text);
    await this.press('Enter');
  }

  /** What it shows, without the blanks at the ends of lines and below. */
  async screen(): Promise<string> {
    const shown = await this.#tmux('capture-pane', '-p', '-J');
    return shown.replace(/[ \n]+$/g, '').replace(/ +$/gm, '');
  }

  async cursor(): Promise<{ column: number; isVisible: boolean; isFullScreen: boolean }> {
    const answer = await this.#tmux('display-message', '-p', '#{cursor_x} #{cursor_flag} #{alternate_on}');
    const [column, visible, alternate] = answer.trim().split(' ').map(Number);
    return { column: column!, isVisible: visible === 1, isFullScreen: alternate === 1 };
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux('resize-window', '-x', `${columns}`, '-y', `${rows}`);
  }

  /** Closes the window, as a lost connection would: the kernel hangs up on its session. */
  async hangUp(): Promise<void> {
    await this.#tmux('kill-pane').catch(() => {}); // the server ends with its last window
  }

  /** Until the screen shows it. Text that was typed is shown as well: look for what only an answer has. */
  async shows(text: string | RegExp, timeoutMs = 15_000): Promise<string> {
    return this.#until(
      (screen) => (typeof text === 'string' ? screen.includes(text) : text.test(screen)),
      text,
      timeoutMs,
    );
  }

  async showsAll(texts: string[], timeoutMs = 15_000): Promise<string> {
    return this.#until((screen) => texts.every((text) => screen.includes(text)), texts.join(', '), timeoutMs);
  }

  async showsNot(text: string, timeoutMs = 15_000): Promise<string> {
    return this.#until((screen) => !screen.includes(text), `no ${text}`, timeoutMs);
  }

  /** Until the shell waits for a command: its prompt is the last line. */
  async prompt(timeoutMs = 15_000): Promise<string> {
    return this.#until((screen) => screen.endsWith(PROMPT), 'the prompt', timeoutMs);
  }

  async #until(isSo: (screen: string) => boolean, what: string | RegExp, timeoutMs: number): Promise<string> {
    const giveUpAt = performance.now() + timeoutMs;
    for (;;) {
      const screen = await this.screen();
      if (isSo(screen)) return screen;
      if (performance.now() > giveUpAt)
        throw new Error(`not shown within ${timeoutMs} ms: ${what}; the screen:\n${screen}`);
      await sleep(POLL_MS);
    }
  }

  async clear(): Promise<void> {
    await this.line('clear');
    await this.#until((screen) => screen === PROMPT, 'an empty screen', 15_000);
  }

  async close(): Promise<void> {
    terminals.delete(this);
    await this.#tmux('kill-server').catch(() => {});
  }
}

const terminals = new Set<Terminal>();

/** For afterEach. */
export async function closeTerminals(): Promise<void> {
  await Promise.all([...terminals].map((terminal) => terminal.close()));
}
