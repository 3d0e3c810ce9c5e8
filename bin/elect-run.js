#!/usr/bin/env node
'use strict';
process.on('SIGUSR1', () => {}); // or else Node opens its debugger, until the signals are ours
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
