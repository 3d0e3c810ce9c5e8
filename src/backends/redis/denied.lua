-- KEYS: lock, token, baton.
-- The commands that we may not call with them; false where the server cannot tell (before Redis 7).
if not redis.acl_check_cmd then
  return false
end
local lock, token, baton = KEYS[1], KEYS[2], KEYS[3]
local calls = {
  {'GET', lock}, {'SET', lock, ''}, {'SET', token, ''}, {'DEL', lock}, {'PTTL', lock}, {'PEXPIRE', lock, 1}, {'TIME'},
  {'RPUSH', baton, ''}, {'BLPOP', baton, 0},
}
local denied = {}
for _, call in ipairs(calls) do
  if not redis.acl_check_cmd(unpack(call)) then
    denied[#denied + 1] = call[1]
  end
end
return denied
