-- KEYS: lock, token, baton. ARGV: our id, ttl in ms.
-- {1, token}: we lead. {0, holder, pttl}: somebody else does.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {0, holder, redis.call('PTTL', KEYS[1])}
end
-- Larger than the last one; and where the last one was lost (flushed, or not yet on the replica that is the master now), larger by the clock.
local last = redis.call('GET', KEYS[2])
if last and not tonumber(last) then
  return redis.error_reply('NOTANUMBER ' .. KEYS[2])
end
local time = redis.call('TIME')
local token = string.format('%.0f', math.max((tonumber(last) or 0) + 1, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[2], token)
-- Ours already: an attempt whose answer was lost. It counts from now.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[3])
return {1, token}
