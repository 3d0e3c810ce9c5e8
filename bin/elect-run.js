#!/usr/bin/env node
'use strict';
// Node keeps what is handled until its event loop runs, and by then src/signals.ts listens. As pid 1 it would be lost (pid_namespaces(7)); USR1 would open the debugger.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1']) process.on(signal, () => {});
const { existsSync, mkdirSync, statSync } = require('node:fs');
const module_ = require('node:module');
const { homedir } = require('node:os');
const { dirname, join } = require('node:path');

const dist = join(__dirname, '..', 'dist');

/** Where compiled code is kept from start to start: only a directory that nobody else can write to will do, since what lies there is run. */
function cacheDirectory() {
  try {
    const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'elect-run');
    if (!existsSync(dirname(folder))) mkdirSync(dirname(folder), 0o700);
    if (!existsSync(folder)) mkdirSync(folder, 0o700);
    const { uid, mode } = statSync(folder);
    return uid === process.getuid() && (mode & 0o022) === 0 ? folder : undefined;
  } catch {
    return undefined;
  }
}

const cache = cacheDirectory();
if (cache) {
  if (module_.enableCompileCache) module_.enableCompileCache(cache);
  else require('./code-cache.js').enableCodeCache(dist, cache);
}
require(join(dist, 'main.js'));
