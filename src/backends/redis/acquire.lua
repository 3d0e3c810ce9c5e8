-- KEYS: lock, token, baton. ARGV: our id, ttl in ms.
-- {1, token}: we lead. {0, holder, pttl}: somebody else does.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {0, holder, redis.call('PTTL', KEYS[1])}
end
-- Larger than the last one; and where the last one was lost (flushed, or not yet on the replica that is the master now), larger by the clock.
-- Lua counts in doubles, which are exact up to 2^53 only: beyond, one more would be the same number again.
local last = redis.call('GET', KEYS[2]) or '0'
if not string.match(last, '^%d+$') or tonumber(last) >= 2 ^ 53 - 1 then
  return redis.error_reply('NOTOKEN ' .. KEYS[2])
end
local time = redis.call('TIME')
local token = string.format('%.0f', math.max(tonumber(last) + 1, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[2], token)
-- Ours already: an attempt whose answer was lost. It counts from now.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[3])
return {1, token}
