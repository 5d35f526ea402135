-- What every script of an owner begins with in a build without the fence: each owner is taken at its word, also one that has
-- lost the partition. The fault bench has to find that out.
local now = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
local last = tonumber(now[2])
if not now[1] then
  return {'lost'}
end
