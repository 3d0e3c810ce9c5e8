// `redlock.mjs HOST:PORT RESOURCE COMMAND…`: runs COMMAND under a lock of npm's redlock, which it extends while COMMAND runs. It knows nothing of elect-run.
import { spawn } from 'node:child_process';
import { Redis } from 'ioredis';
import Redlock from 'redlock';

const TTL_MS = 2000;
const [endpoint, resource, command, ...args] = process.argv.slice(2);
const [host, port] = endpoint.split(':');
const client = new Redis(Number(port), host);
const redlock = new Redlock([client], { retryCount: -1, retryDelay: 50 });
console.log('waits');
let lock = await redlock.lock(resource, TTL_MS);
const job = spawn(command, args, { stdio: 'ignore' });
const extension = setInterval(async () => {
  lock = await lock.extend(TTL_MS);
}, TTL_MS / 4);
job.on('exit', async () => {
  clearInterval(extension);
  await lock.unlock();
  client.disconnect();
});
