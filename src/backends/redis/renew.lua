-- KEYS: lock. ARGV: our id, ttl in ms.
-- 1: renewed. Otherwise who holds it, or false.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
return holder
