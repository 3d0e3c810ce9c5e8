-- KEYS: lock, baton. ARGV: our id, how long the baton waits for somebody, in ms.
-- The lock is given back if it is ours. Where it is free then, the one who has waited longest is told: of all the clients that block
-- on a list, Redis serves the first. Somebody who leaves passes on a baton that may have been on its way to it.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('DEL', KEYS[1])
elseif holder then
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('RPUSH', KEYS[2], 'free')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
