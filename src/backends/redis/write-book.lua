-- KEYS: lock, book. ARGV: our id, the book as it was read ('': there was none), the book as it shall be.
-- {1}: written. {0, holder or false}: we do not hold the lock. {2}: the book has changed.
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return {0, holder}
end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then
  return {2}
end
redis.call('SET', KEYS[2], ARGV[3])
return {1}
