#!/usr/bin/env node
'use strict';
// Node keeps what is handled until its event loop runs, and by then src/signals.ts listens. As pid 1 it would be lost (pid_namespaces(7)); USR1 would open the debugger.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1']) process.on(signal, () => {});
const { closeSync, fstatSync, mkdirSync, openSync, readdirSync, readFileSync, statSync } = require('node:fs');
const { homedir } = require('node:os');
const { basename, dirname, isAbsolute, join } = require('node:path');
const { Script } = require('node:vm');
const Module = module.constructor;

const dist = join(__dirname, '..', 'dist');

/** Where compiled code is kept from start to start, and what lies there: only a directory that nobody else can write to will do, since what lies there is run. */
function findCache() {
  try {
    const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'elect-run');
    if (!isAbsolute(folder)) return undefined; // wherever we happen to be started
    if (!isOursAlone(statSync(folder, { throwIfNoEntry: false }) ?? made(folder))) return undefined;
    return { folder, names: readdirSync(folder) };
  } catch {
    return undefined;
  }
}

const isOursAlone = ({ uid, mode }) => uid === process.getuid() && (mode & 0o022) === 0;

function made(folder) {
  if (!statSync(dirname(folder), { throwIfNoEntry: false })) mkdirSync(dirname(folder), 0o700);
  mkdirSync(folder, 0o700);
  return statSync(folder);
}

/**
 * Every module of dist/ is compiled by way of what an earlier run has kept: the code of all functions that it used, where module.enableCompileCache (Node 22.1) keeps those only that
 * run while a module is loaded. code-cache.js keeps it, for the next run.
 */
function enableCodeCache({ folder, names }) {
  const compiled = [];
  const use = process.argv.includes('--') ? 'run' : 'look'; // which functions are used
  const plain = Module._extensions['.js'];
  Module._extensions['.js'] = (module, filename) => {
    if (dirname(filename) !== dist) return plain(module, filename);
    const { mtimeMs } = statSync(filename);
    const source = readFileSync(filename, 'utf8');
    // V8 itself refuses code of another version or other flags, but of another source only if it has another length. Where all files are of 1970, the build's mark tells.
    const stem = `${basename(filename)}-${process.version}-${process.arch}-${Math.round(mtimeMs)}-${source.slice(-MARK_LENGTH)}-${use}-`;
    const kept = names
      .filter((name) => name.startsWith(stem) && /^\d$/.test(name.slice(stem.length)))
      .sort()
      .at(-1);
    const cachedData = kept && read(join(folder, kept));
    const script = new Script(Module.wrap(source), { filename, cachedData });
    compiled.push({
      script,
      stem,
      kept: script.cachedDataRejected === false ? kept : undefined,
      size: cachedData?.length,
    });
    script.runInThisContext().call(module.exports, module.exports, (id) => module.require(id), module, filename, dist);
  };
  process.once('exit', () => {
    if (compiled.every(({ stem, kept }) => kept === `${stem}${LAST_TIME}`)) return;
    try {
      require('./code-cache.js').keep(folder, compiled, LAST_TIME);
    } catch {} // it may have been removed meanwhile
  });
}

/** So often what is kept may grow by what another run has used. */
const LAST_TIME = 4;

/** Of the mark that scripts/build.mjs leaves at the end of each file. */
const MARK_LENGTH = 16;

/** The folder may have been put in the place of ours since we looked, by whoever can write to the one above it. */
function read(file) {
  try {
    const fd = openSync(file, 'r');
    try {
      return isOursAlone(fstatSync(fd)) ? readFileSync(fd) : undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined;
  }
}

const cache = findCache();
if (cache) enableCodeCache(cache);
require(join(dist, 'main.js')).start();
